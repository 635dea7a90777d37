"""Keeps the last bytes of a stream without copying them for each piece. No I/O."""


class TailBuffer:
    """The last bytes of a stream."""

    def __init__(self, min_bytes: int) -> None:
        """Keeps at least `min_bytes` bytes, if there are as many."""
        self._min_bytes = min_bytes
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size > 2 * self._min_bytes:
            self._trim()

    def bytes(self) -> bytes:
        """At most `min_bytes` of the end."""
        self._trim()
        return self._parts[0]

    def _trim(self) -> None:
        kept = b"".join(self._parts)[-self._min_bytes :]
        self._parts, self._size = [kept], len(kept)
