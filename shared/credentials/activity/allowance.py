"""What an account has left, as the upstream's last response said. No I/O."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from shared.decoding import UnreadableRecord, decode_record
from shared.parsing import parse_json_object


@dataclass(frozen=True)
class Left:
    """What is left of one limit."""

    #: What it limits, as its header names it: `requests`, `tokens`, `requests-day`, …
    name: str
    remaining: float
    #: The limit itself; None if the upstream does not say.
    limit: float | None = None
    #: When it is reset, seconds since the epoch; 0 if that is not known.
    reset_at: float = 0.0


@dataclass(frozen=True)
class Allowance:
    """The limits that the last response with such headers named."""

    #: When that response came, seconds since the epoch.
    at: float
    left: Sequence[Left] = field(default_factory=tuple)

    def encode(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def decode(cls, stored: str) -> "Allowance | None":
        """None without any, or of another form."""
        values = parse_json_object(stored.encode()) if stored else {}
        try:
            return cls(float(values["at"]), tuple(decode_record(Left, left) for left in values["left"]))
        except (UnreadableRecord, ValueError, TypeError, KeyError):
            return None
