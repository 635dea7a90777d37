"""A JSON response on its way through: metered, and with the caller's name of the model. No I/O."""

from shared.response.rewriter import ModelRenamer
from workers.response.token_meter import TokenMeter


class JsonBody:
    """One body, which is held back as a whole if a model is renamed in it."""

    def __init__(self, meter: TokenMeter, renamer: ModelRenamer | None = None) -> None:
        self._meter = meter
        self._renamer = renamer
        self._held: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """Takes more of the body and returns the bytes that may pass now."""
        self._meter.feed(data)
        if self._renamer is None:
            return data
        self._held.append(data)
        return b""

    def flush(self) -> bytes:
        """Returns the rest at the end of the body."""
        return self._renamer.rename(b"".join(self._held)) if self._renamer else b""
