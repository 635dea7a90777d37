"""Asks for a request's body once the app reads it (RFC 9110 section 10.1.1): callers that are refused don't send it."""

from typing import Any

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def expects_continue(request: Any) -> bool:
    """Whether the caller waits to be asked; gunicorn has refused any other expectation."""
    return request.version >= (1, 1) and any(name == "EXPECT" for name, _ in request.headers)


def ask_when_read(request: Any, sock: Any) -> None:
    """While nobody has asked for the body, nobody knows whether it comes: a reply closes the connection then."""
    body, closes, read = request.body, request.must_close, request.body.read

    def ask_and_read(size: int | None = None) -> bytes:
        body.read, request.must_close = read, closes
        sock.sendall(CONTINUE)
        data: bytes = read(size)
        return data

    body.read, request.must_close = ask_and_read, True
