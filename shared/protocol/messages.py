"""The messages between front and worker: the relay request and the frames of its response; no I/O.

One pub/sub message carries one or more frames. A frame on the wire:

    kind (1 byte) | tag (4 bytes, big endian) | number (4 bytes) | length (4 bytes) | payload

Frames of one response are numbered from 0, so a listener sees a gap. The tag stands for the attempt that sent them, so
that a worker which has lost its job, and does not know it yet, can't mix its answer with that of the next one.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

from shared.errors import ApiError

FRAME_HEADER = struct.Struct("!BIII")
#: The number of a frame that is sent by whoever finds a job, in place of the worker that is gone.
OUT_OF_BAND = 0xFFFFFFFF


@dataclass(frozen=True)
class RelayRequest:
    """One client request on its way to the upstream. Its body is kept apart, so job data never holds a prompt."""

    #: Request id, which is the RQ job's id too.
    id: str
    pool: str
    #: Path below the upstream's base URL, e.g. `/chat/completions`, with the query string.
    path: str
    #: Headers for the upstream, lower-case names.
    headers: Mapping[str, str]
    #: The web process that waits for the answer.
    front: str
    #: Channel that the frames go to.
    channel: str
    #: When it was admitted, seconds since the epoch.
    enqueued_at: float
    #: When its total time is over, seconds since the epoch.
    deadline: float
    #: Whether the caller asked for a stream.
    stream: bool = False
    method: str = "POST"
    #: Id of the caller's API key, `-` for the farm itself.
    key: str = "-"
    band: str = "interactive"
    #: The model's name as the caller gave it.
    model: str = ""
    #: Whether the usage at the end of a stream was asked for by the farm alone.
    hides_usage: bool = False

    def encode(self) -> dict[str, Any]:
        """As JSON values, for the job's arguments."""
        return dict(vars(self))

    @classmethod
    def decode(cls, values: dict[str, Any]) -> "RelayRequest":
        """From a job's arguments."""
        return cls(**values)


class FrameKind(IntEnum):
    """What a frame carries."""

    #: JSON of Head: the HTTP status is known and the first byte is here.
    HEAD = 1
    #: Bytes of the upstream's body.
    DATA = 2
    #: JSON of End: the body is whole.
    END = 3
    #: JSON of Failure: there is no answer, or no more of it.
    FAILURE = 4


#: The kinds by their number; calling the enumeration would take longer.
KINDS = {int(kind): kind for kind in FrameKind}


class Frame(NamedTuple):
    """One frame of a response."""

    kind: FrameKind
    number: int
    payload: bytes = b""
    #: Stands for the attempt that sent it.
    tag: int = 0

    def encode(self) -> bytes:
        """The frame's bytes."""
        return FRAME_HEADER.pack(self.kind, self.tag, self.number, len(self.payload)) + self.payload


def decode_frames(message: bytes) -> Iterator[Frame]:
    """The frames of one pub/sub message. Raises ValueError when it is cut or of an unknown kind."""
    at = 0
    while at < len(message):
        if len(message) - at < FRAME_HEADER.size:
            raise ValueError("a frame's head is cut")
        kind, tag, number, length = FRAME_HEADER.unpack_from(message, at)
        at += FRAME_HEADER.size
        if len(message) - at < length:
            raise ValueError("a frame's payload is cut")
        if kind not in KINDS:
            raise ValueError(f"no frame is of kind {kind}")
        yield Frame(KINDS[kind], number, message[at : at + length], tag)
        at += length


@dataclass(frozen=True)
class Head:
    """The upstream's status and headers, and how the request came to it."""

    status: int
    headers: Mapping[str, str]
    #: Attempts so far, this one included.
    attempts: int
    #: Milliseconds between admission and the start of this attempt.
    queue_wait_ms: int
    #: Milliseconds between the start of this attempt and the first byte.
    first_byte_ms: int

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps(vars(self)).encode()

    @classmethod
    def decode(cls, payload: bytes) -> "Head":
        """From JSON."""
        return cls(**json.loads(payload))


@dataclass(frozen=True)
class Failure:
    """Why there is no answer, or no more of it."""

    status: int
    code: str
    message: str
    type: str
    attempts: int
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps(vars(self)).encode()

    @classmethod
    def decode(cls, payload: bytes) -> "Failure":
        """From JSON."""
        return cls(**json.loads(payload))

    def to_error(self) -> ApiError:
        """The error a caller gets."""
        headers = {**self.headers, "x-farm-attempts": str(self.attempts)}
        return ApiError(self.status, self.code, self.message, self.type, headers=headers)
