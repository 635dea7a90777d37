"""Acknowledgements of reply frames and flow control, from fronts to workers.

Pub/sub delivers at most once, so a worker keeps the frames it has sent until the front acknowledges them, and
retransmits them on request. The messages are JSON on one channel that all worker processes subscribe to. They may get
lost: a front repeats an acknowledgement that has had no effect.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.decoding import decode_positional, decode_record, parse_values

#: Bytes of a reply that may be in flight or buffered in the front (backpressure window).
WINDOW_BYTES = 256 * 1024


@dataclass(frozen=True)
class Ack:
    """A front's progress with one reply."""

    #: Tag of the attempt whose frames the front accepts; None before the first.
    tag: int | None
    #: Number of the next frame; all before it have arrived.
    expected: int
    #: Total bytes of the body that may have been sent.
    window_end: int
    #: Whether frames from `expected` on are missing and should be retransmitted.
    retransmit: bool = False


@dataclass(frozen=True)
class StoredAckBatch:
    """An AckBatch as it is encoded."""

    front: str
    #: Request id -> the fields of an Ack, in order.
    at: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    over: Sequence[str] = ()


@dataclass(frozen=True)
class AckBatch:
    """One message from a front."""

    front: str
    #: Request id -> acknowledgement.
    acks: Mapping[str, Ack] = field(default_factory=dict)
    #: Ids of requests whose reply is complete or whose caller has left.
    finished: Sequence[str] = ()

    def encode(self) -> bytes:
        acks = {id_: (ack.tag, ack.expected, ack.window_end, ack.retransmit) for id_, ack in self.acks.items()}
        return json.dumps({"front": self.front, "at": acks, "over": list(self.finished)}).encode()

    @classmethod
    def decode(cls, message: bytes) -> "AckBatch":
        """Raises UnreadableRecord if the message is malformed."""
        stored = decode_record(StoredAckBatch, parse_values(message))
        acks = {request_id: decode_positional(Ack, values) for request_id, values in stored.at.items()}
        return cls(stored.front, acks, stored.over)
