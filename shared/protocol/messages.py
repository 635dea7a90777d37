"""Messages between front and worker: relay requests and the frames of their replies. No I/O.

One pub/sub message carries one or more frames. A frame on the wire:

    kind (1 byte) | tag (4 bytes, big endian) | number (4 bytes) | length (4 bytes) | payload

Frames of one reply are numbered from 0, so the front detects gaps. The tag identifies the attempt that sent them, so
that a worker which has lost its job without knowing it yet can't mix its frames with those of the next attempt.

Version 0.1 refuses a message with a field that it does not know. So what a later version adds to a job goes into a
field of the job's hash (relay_queue.py), and into a message only where no older reader can meet it.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

from shared.decoding import decode_record, parse_record
from shared.errors import ApiError

FRAME_HEADER = struct.Struct("!BIII")
#: Number of a frame sent in place of a worker that is gone, by the process that recovers its job.
OUT_OF_BAND = 0xFFFFFFFF


@dataclass(frozen=True)
class RelayRequest:
    """A caller's request. Its body is stored separately, so job data never holds a prompt."""

    #: Request id and RQ job id.
    id: str
    pool: str
    #: Path below the upstream's base URL, e.g. `/chat/completions`, with the query string.
    path: str
    #: Headers for the upstream, lower-case names.
    headers: Mapping[str, str]
    #: Id of the front that waits for the reply.
    front: str
    #: Pub/sub channel for the reply's frames.
    channel: str
    #: Admission time, in seconds since the epoch.
    enqueued_at: float
    #: End of the total timeout, in seconds since the epoch.
    deadline: float
    stream: bool = False
    method: str = "POST"
    #: Id of the caller's API key, `-` for requests of the farm itself.
    key: str = "-"
    band: str = "interactive"
    #: Model name as given by the caller.
    model: str = ""
    #: Whether the usage is hidden from the caller, because only the farm requested it.
    hides_usage: bool = False
    #: Whether that usage passes all the same, because the front decides who sees it.
    reveals_usage: bool = False

    @property
    def is_interactive(self) -> bool:
        return self.band == "interactive"

    def encode(self) -> dict[str, Any]:
        """Returns JSON values for the job's arguments."""
        values = dict(vars(self))
        # Version 0.1 does not know it, and no request has it there.
        if not self.reveals_usage:
            del values["reveals_usage"]
        return values

    @classmethod
    def decode(cls, values: Any) -> "RelayRequest":
        """Raises UnreadableRecord."""
        return decode_record(cls, values)


class FrameKind(IntEnum):
    """The payload of a frame."""

    #: Of a newer version; ignored.
    UNKNOWN = 0
    #: JSON of Head, sent when the first byte of the body has arrived.
    HEAD = 1
    #: Bytes of the upstream's body.
    DATA = 2
    #: No payload; the body is complete.
    END = 3
    #: JSON of Failure: there is no response, or it broke off.
    FAILURE = 4


#: Frame kinds by number; faster than calling the enumeration.
FRAME_KINDS = {int(kind): kind for kind in FrameKind}


class Frame(NamedTuple):
    """One frame of a reply."""

    kind: FrameKind
    number: int
    payload: bytes = b""
    #: Identifies the attempt that sent the frame.
    tag: int = 0

    def encode(self) -> bytes:
        return FRAME_HEADER.pack(self.kind, self.tag, self.number, len(self.payload)) + self.payload


def decode_frames(message: bytes) -> Iterator[Frame]:
    """Yields the frames of one pub/sub message. Raises ValueError if one is truncated."""
    offset = 0
    while offset < len(message):
        if len(message) - offset < FRAME_HEADER.size:
            raise ValueError("truncated frame header")
        kind, tag, number, length = FRAME_HEADER.unpack_from(message, offset)
        offset += FRAME_HEADER.size
        if len(message) - offset < length:
            raise ValueError("truncated frame payload")
        yield Frame(FRAME_KINDS.get(kind, FrameKind.UNKNOWN), number, message[offset : offset + length], tag)
        offset += length


@dataclass(frozen=True)
class Head:
    """Status and headers of the upstream's response, with the timings of the request."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Attempts so far, including this one.
    attempts: int = 1
    #: Milliseconds between admission and the start of this attempt.
    queue_wait_ms: int = 0
    #: Milliseconds between the start of this attempt and the first byte.
    first_byte_ms: int = 0

    def encode(self) -> bytes:
        return json.dumps(vars(self)).encode()

    @classmethod
    def decode(cls, payload: bytes) -> "Head":
        """Raises UnreadableRecord."""
        return parse_record(cls, payload)


@dataclass(frozen=True)
class Failure:
    """Why there is no response, or why it broke off."""

    status: int
    code: str
    message: str
    type: str = "server_error"
    attempts: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        return json.dumps(vars(self)).encode()

    @classmethod
    def decode(cls, payload: bytes) -> "Failure":
        """Raises UnreadableRecord."""
        return parse_record(cls, payload)

    def to_error(self) -> ApiError:
        """Returns the error for the caller."""
        headers = {**self.headers, "x-farm-attempts": str(self.attempts)}
        return ApiError(self.status, self.code, self.message, self.type, headers=headers)
