"""What a front tells the workers about the answers it takes in: how far it is, how much more may come, what is over.

Pub/sub delivers at most once, so a worker keeps the frames that it sent until the front has confirmed them, and sends
them again when the front asks. Messages are JSON, on one channel that all worker processes hear; any of them may be
lost, because the front repeats what has had no effect.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: Bytes of an answer that may be on their way, or wait in the front, before the front has said that more may come.
WINDOW_BYTES = 256 * 1024


@dataclass(frozen=True)
class Ack:
    """How far a front is with one answer."""

    #: Tag of the attempt whose frames it takes; None before the first.
    tag: int | None
    #: The frame that it waits for; all before it are here.
    expected: int
    #: Bytes of the body that may have been sent in all.
    window_end: int
    #: Whether frames from `number` on are missing and should be sent again.
    retransmit: bool


@dataclass(frozen=True)
class AckBatch:
    """One message of a front."""

    front: str
    #: Request id -> how far its answer is.
    acks: Mapping[str, Ack] = field(default_factory=dict)
    #: Ids of requests whose answer is not waited for any more: whole, or the caller has left.
    finished: Sequence[str] = ()

    def encode(self) -> bytes:
        """As JSON."""
        positions = {one: (p.tag, p.expected, p.window_end, p.retransmit) for one, p in self.acks.items()}
        return json.dumps({"front": self.front, "at": positions, "over": list(self.finished)}).encode()

    @classmethod
    def decode(cls, message: bytes) -> "AckBatch":
        """From JSON. Raises ValueError, KeyError or TypeError when it is none of ours."""
        found: dict[str, Any] = json.loads(message)
        positions = {one: Ack(*values) for one, values in found["at"].items()}
        return cls(found["front"], positions, found["over"])
