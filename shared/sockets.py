"""Sends bytes over a gevent socket with one system call instead of two."""

import socket


def send_all(sock: socket.socket, data: bytes) -> None:
    """Like `sock.sendall`, without its getsockopt call for the buffer size. Raises OSError."""
    if (sent := sock.send(data)) < len(data):
        sock.sendall(memoryview(data)[sent:])
