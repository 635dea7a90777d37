"""The frames of a reply, as a response is rendered from them, wherever they come from."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from shared.decoding import UnreadableRecord
from shared.errors import FarmError
from shared.protocol.messages import Failure, Frame, FrameKind, Head

UNREADABLE_REPLY = Failure(502, "reply_unreadable", "the worker's reply is of a format that this front can't read")


class FrameTimeout(FarmError):
    """Raised when no frame arrives within the timeout."""


class ReplyFrames(ABC):
    """The frames of one reply, in order, for one caller."""

    #: None where the WSGI server does not expose it.
    caller_socket: Any

    @property
    @abstractmethod
    def wants_stream(self) -> bool:
        """Whether the caller asked for a stream, so that comments may keep it alive."""

    @abstractmethod
    def wait_for_frames(self, timeout: float) -> list[Frame]:
        """Returns the next frames. Raises FrameTimeout after `timeout` seconds, ApiError if there will be none."""

    @abstractmethod
    def close(self) -> None:
        """Called when the caller has its reply, or has left. Idempotent."""

    def wait_for_head(self, timeout: float) -> tuple[Head, list[Frame]]:
        """Returns the head and the frames after it. Raises ApiError when the request failed, FrameTimeout."""
        frames = self.wait_for_frames(timeout)
        if frames[0].kind is FrameKind.FAILURE:
            self.close()
            raise decode_failure(frames[0]).to_error()
        try:
            return Head.decode(frames[0].payload), frames[1:]
        except UnreadableRecord:
            self.close()
            raise UNREADABLE_REPLY.to_error() from None

    def iter_body(self, frames: list[Frame], timeout: float) -> Iterator[bytes]:
        """Yields the body, and b'' after `timeout` seconds of silence. Raises ApiError when the body is incomplete."""
        while True:
            if data := b"".join([frame.payload for frame in frames if frame.kind is FrameKind.DATA]):
                yield data
            if frames and frames[-1].kind is FrameKind.END:
                return
            if frames and frames[-1].kind is FrameKind.FAILURE:
                raise decode_failure(frames[-1]).to_error()
            try:
                frames = self.wait_for_frames(timeout)
            except FrameTimeout:
                frames = []
                yield b""


def decode_failure(frame: Frame) -> Failure:
    try:
        return Failure.decode(frame.payload)
    except UnreadableRecord:
        return UNREADABLE_REPLY
