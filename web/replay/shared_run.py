"""A run of a request whose answer several callers follow, each from its first byte.

1. A source feeds the frames: the workers' reply, a kept answer, or the run of another front.
2. The run keeps them from the beginning, within bounds, for callers that come later.
3. When the last caller leaves, the run is cancelled, or drained if a retry may ask for it.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from gevent.event import Event
from redis.exceptions import RedisError

from shared.decoding import UnreadableRecord
from shared.errors import ApiError
from shared.protocol.messages import Failure, Frame, FrameKind, Head
from web.replay.answers.answer_store import Share
from web.request.reply_frames import decode_failure

#: Bytes of an answer that is kept from its beginning.
MAX_ANSWER_BYTES = 8 * 1024 * 1024
#: Bytes that all runs of a front keep; while they are used up, no run goes on keeping its answer.
MAX_TOTAL_BYTES = 128 * 1024 * 1024
#: Bytes that a follower may leave unread, when they are kept for nobody else, before the source has to wait.
MAX_UNREAD_BYTES = 1024 * 1024
ENDS = (FrameKind.END, FrameKind.FAILURE)


class KeptBytes:
    """The bytes that all runs of a front keep."""

    def __init__(self) -> None:
        self.total = 0


class RunFollower(Protocol):
    """Who follows a run."""

    unread_bytes: int

    def put(self, frames: Sequence[Frame]) -> None:
        """Takes more of the answer."""


class SharedRun:
    """One run."""

    def __init__(self, run_id: str, shares: Sequence[Share], kept_bytes: KeptBytes, *, drains: bool) -> None:
        """`drains`: whether the answer is wanted although its callers have left."""
        self.id = run_id
        self.shares = shares
        self.drains = drains
        #: Set when it is known where the answer comes from, or that there will be none.
        self.opened = Event()
        self.is_open = False
        #: Why it is not known where the answer comes from: Redis is away.
        self.lost_store: RedisError | None = None
        #: Whether the answer reports no usage, as it was made for another request.
        self.is_free = False
        #: Whether the request of that id is run for it by a worker, which logs it.
        self.has_job = False
        #: Everything so far, unless it has become too much to keep.
        self.frames: list[Frame] = []
        self.is_kept = True
        self.has_ended = False
        #: The status that callers get, 0 before the head; and why the answer ended early.
        self.status = 0
        self.failure: Failure | None = None
        #: Called when the answer has become too much to keep, and when nobody wants it any more.
        self.on_unkept: Callable[[], None] = lambda: None
        self.cancel: Callable[[], None] = lambda: None
        #: Cleared while not all of it is there for the other fronts that follow.
        self.exported = Event()
        self.exported.set()
        self._exports = 0
        #: The names by which other fronts find it whose exports have come to the end of the answer.
        self.whole_exports: set[str] = set()
        self._followers: set[RunFollower] = set()
        self._kept_bytes = kept_bytes
        self._size = 0
        self._was_read = Event()

    @property
    def can_be_joined(self) -> bool:
        """Whether a later caller gets the answer from its first byte; one that has failed is not given again."""
        return self.is_open and self.is_kept and (self.is_whole or not self.has_ended)

    def is_of_other(self, share: Share) -> bool:
        """Whether the name stands for another request here."""
        return any(each.name == share.name and each.print != share.print for each in self.shares)

    def adopt(self, shares: Sequence[Share]) -> None:
        """The run stands for these idempotency keys too: its answer is wanted although their callers leave."""
        self.shares = (*self.shares, *shares)
        self.drains = True

    def list_foreign_keys(self, shares: Sequence[Share]) -> list[Share]:
        """Those of the shares that are idempotency keys for which the run does not stand."""
        return [share for share in shares if share.print and share not in self.shares]

    def is_repeated_by(self, shares: Sequence[Share]) -> bool:
        """Whether those are the shares of a retry of the request, by its idempotency key."""
        return any(share.print and share in self.shares for share in shares)

    @property
    def has_followers(self) -> bool:
        return bool(self._followers)

    @property
    def is_whole(self) -> bool:
        """Whether all of a 2xx answer is there."""
        return self.has_ended and self.is_kept and self.failure is None and 200 <= self.status < 300

    def replay(self, frames: list[Frame]) -> None:
        """Takes a whole answer, which is kept elsewhere too."""
        self.frames, self.is_kept = frames, True
        self._deliver(frames)

    def put(self, frames: Sequence[Frame]) -> None:
        """Takes more of the answer from its source; without effect once it has ended."""
        if self.has_ended:
            return
        if self.is_kept:
            self._keep(frames)
        self._deliver(frames)

    def fail(self, error: ApiError) -> None:
        """Ends an answer that has not ended."""
        failure = Failure(error.status, error.code, error.message, error.type, 0, error.headers)
        self.put([Frame(FrameKind.FAILURE, 0, failure.encode())])

    def _deliver(self, frames: Sequence[Frame]) -> None:
        if not self.status and frames[0].kind is FrameKind.HEAD:
            self.status = read_status(frames[0])
        self.has_ended = frames[-1].kind in ENDS
        if frames[-1].kind is FrameKind.FAILURE:
            self.failure = decode_failure(frames[-1])
        for follower in list(self._followers):
            follower.put(frames)

    def _keep(self, frames: Sequence[Frame]) -> None:
        size = sum(len(frame.payload) for frame in frames)
        if self._size + size > MAX_ANSWER_BYTES or self._kept_bytes.total + size > MAX_TOTAL_BYTES:
            self.stop_keeping()
            self.on_unkept()
            self._cancel_if_unwanted()
            return
        self.frames += frames
        self._size += size
        self._kept_bytes.total += size

    def stop_keeping(self) -> None:
        """Frees what is kept; those who follow already get the rest all the same. Idempotent."""
        self.is_kept = False
        self._kept_bytes.total -= self._size
        self.frames, self._size = [], 0

    def wait_for_readers(self) -> None:
        """Lets the source wait while what is kept for nobody else is not read."""
        while not self.is_kept and any(each.unread_bytes > MAX_UNREAD_BYTES for each in self._followers):
            self._was_read.clear()
            self._was_read.wait()

    def note_read(self) -> None:
        self._was_read.set()

    def begin_export(self) -> None:
        self._exports += 1
        self.exported.clear()

    def end_export(self) -> None:
        self._exports -= 1
        if not self._exports:
            self.exported.set()

    def add(self, follower: RunFollower) -> None:
        """The follower gets what there is, and then what comes."""
        self._followers.add(follower)
        if self.frames:
            follower.put(self.frames)

    def remove(self, follower: RunFollower) -> None:
        """The follower has its answer, or has left. Idempotent."""
        self._followers.discard(follower)
        self._was_read.set()
        self._cancel_if_unwanted()

    def attach_source(self, cancel: Callable[[], None]) -> None:
        """`cancel` ends the source, at once if nobody wants the answer any more."""
        self.cancel = cancel
        self._cancel_if_unwanted()

    def _cancel_if_unwanted(self) -> None:
        if not self.has_ended and not self._followers and not (self.drains and self.is_kept):
            self.is_open = False
            self.cancel()


def read_status(head: Frame) -> int:
    """0 for a head that can't be read; its callers get an error."""
    try:
        return Head.decode(head.payload).status
    except UnreadableRecord:
        return 0
