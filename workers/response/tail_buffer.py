"""The end of a stream of bytes, kept without copying it for each piece; pure."""


class TailBuffer:
    """The last bytes of what was added."""

    def __init__(self, min_bytes: int) -> None:
        """`most`: bytes that are kept at least, should there be as many."""
        self._min_bytes = min_bytes
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        """More bytes."""
        self._parts.append(data)
        self._size += len(data)
        if self._size > 2 * self._min_bytes:
            self._trim()

    def bytes(self) -> bytes:
        """The last of them."""
        self._trim()
        return self._parts[0]

    def _trim(self) -> None:
        kept = b"".join(self._parts)[-self._min_bytes :]
        self._parts, self._size = [kept], len(kept)
