"""Sends the head of a response together with the first bytes of its body.

gunicorn writes them separately, which costs one more system call here and wakes the caller twice.
"""

from typing import Any

from shared.sockets import send_all

#: Bytes above which joining costs more than a second system call.
MAX_JOINED_BYTES = 65_536


class CorkedSocket:
    """Stands in for the caller's socket while one request is handled."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self._has_head = False
        self._head = b""

    def sendall(self, data: bytes) -> None:
        """Holds back the first data, the head, until the next."""
        if not self._has_head:
            self._has_head, self._head = True, data
            return
        if len(data) > MAX_JOINED_BYTES:
            self.flush()
        head, self._head = self._head, b""
        send_all(self.raw, head + data)

    def flush(self) -> None:
        head, self._head = self._head, b""
        if head:
            self.raw.sendall(head)

    def __getattr__(self, name: str) -> Any:
        """Any other use of the socket comes after the head."""
        self.flush()
        return getattr(self.raw, name)
