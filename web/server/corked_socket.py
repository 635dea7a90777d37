"""A caller's connection on which the head of an answer travels with the first bytes of its body; it reads nothing.

gunicorn writes them one after the other, which is a system call more here and wakes the caller twice.
"""

from typing import Any

from shared.sockets import send_all

#: Bytes above which copying them costs more than a call.
MAX_JOINED_BYTES = 65_536


class CorkedSocket:
    """Stands in for the socket while one request is handled."""

    def __init__(self, raw: Any) -> None:
        #: The socket itself.
        self.raw = raw
        self._has_head = False
        self._head = b""

    def sendall(self, data: bytes) -> None:
        """Sends; the first that comes is the head, and waits for what follows."""
        if not self._has_head:
            self._has_head, self._head = True, data
            return
        if len(data) > MAX_JOINED_BYTES:
            self.flush()
        head, self._head = self._head, b""
        send_all(self.raw, head + data)

    def flush(self) -> None:
        """Sends a head that still waits."""
        head, self._head = self._head, b""
        if head:
            self.raw.sendall(head)

    def __getattr__(self, name: str) -> Any:
        """Whatever else is done with the socket comes after the head."""
        self.flush()
        return getattr(self.raw, name)
