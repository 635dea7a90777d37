"""Sends bytes over a gevent socket with one system call instead of two."""

import socket

import gevent

#: Bytes after which the event loop turns, although the peer may read as fast as it is sent to.
PIECE_BYTES = 262_144


def send_all(sock: socket.socket, data: bytes) -> None:
    """Like `sock.sendall`, without its getsockopt call for the buffer size. Raises OSError."""
    if (sent := sock.send(data)) < len(data):
        sock.sendall(memoryview(data)[sent:])


def send_in_pieces(sock: socket.socket, data: bytes) -> None:
    """Like `send_all`, and a long send does not keep the event loop to itself. Raises OSError."""
    if len(data) <= PIECE_BYTES:
        send_all(sock, data)
        return
    view = memoryview(data)
    for start in range(0, len(view), PIECE_BYTES):
        sock.sendall(view[start : start + PIECE_BYTES])
        gevent.sleep(0)
