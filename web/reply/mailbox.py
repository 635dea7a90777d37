"""The frames of one request, in order and without a gap; says what is missing, and when more may come; no I/O.

What waits here because the caller reads slowly is bounded: once it is enough, the worker is not told that more may
come, and stops reading from the upstream.
"""

import time
from collections.abc import Callable

from shared.protocol.messages import OUT_OF_BAND, Failure, Frame, FrameKind
from shared.protocol.reply_acks import WINDOW_BYTES, Ack
from web.reply.batch_queue import BatchQueue

#: Bytes that may wait for one slow reader before its upstream is made to wait.
MAX_BUFFERED_BYTES = 1024 * 1024
#: Bytes that may wait in all mailboxes of a process before each is held to a quarter of WINDOW.
MAX_TOTAL_BUFFERED_BYTES = 128 * 1024 * 1024
#: Seconds of silence after which a worker is asked whether something was lost; doubled up to the longest.
PROBE_SECONDS, MAX_PROBE_SECONDS = 1.0, 10.0
#: Least seconds between two questions about the same gap.
RETRANSMIT_INTERVAL_SECONDS = 0.3


class BufferedBytes:
    """Bytes that wait in all mailboxes of a process."""

    def __init__(self) -> None:
        self.bytes = 0


class Mailbox:
    """The frames of one request."""

    def __init__(
        self,
        request_id: str,
        total_buffered: BufferedBytes,
        acknowledge: Callable[["Mailbox", bool], None],
        overdue_at: float = float("inf"),
        on_overdue: Callable[[], None] = lambda: None,
    ) -> None:
        self.request_id = request_id
        #: Tells the worker where this mailbox is, and whether it should send again from there.
        self._acknowledge = acknowledge
        self._frames: BatchQueue[Frame] = BatchQueue()
        self._next_number = 0
        self._tag: int | None = None
        self._total_buffered = total_buffered
        self._buffered = 0
        self._received = 0
        self._window_end = WINDOW_BYTES
        self._retransmit_asked_at = 0.0
        self._probe_after = PROBE_SECONDS
        #: When the last frame came, or the request began; seconds of the monotonic clock.
        self.last_frame_at = time.monotonic()
        #: Since when a frame is known to be missing, 0 for never.
        self.gap_since = 0.0
        #: When the request should long be over, seconds since the epoch, and what is done about one that is not.
        self.overdue_at = overdue_at
        self.on_overdue = on_overdue
        #: Whether the last frame has come.
        self.ended = False
        #: Whether this side has ended it, so that the worker may still be at it.
        self.ended_by_front = False
        #: Whether its job has vanished before anything of an answer had come.
        self.is_lost = False

    @property
    def has_started(self) -> bool:
        """Whether a frame has come."""
        return self._tag is not None

    @property
    def position(self) -> tuple[int | None, int, int]:
        """Tag, number of the next frame, bytes that may have been sent in all."""
        return self._tag, self._next_number, self._window_end

    def build_ack(self, *, retransmit: bool) -> Ack:
        """Where this mailbox is, for the worker."""
        return Ack(*self.position, retransmit)

    def put(self, frame: Frame) -> None:
        """Takes the next frame; drops one that was here before or is another attempt's, asks for a missing one."""
        if self.ended:
            return
        if frame.number != OUT_OF_BAND:
            if self._tag not in (None, frame.tag) or frame.number < self._next_number:
                return
            if frame.number > self._next_number:
                self._request_missing()
                return
            self._tag = frame.tag
        self._accept(frame)

    def _accept(self, frame: Frame) -> None:
        self.last_frame_at = time.monotonic()
        self.gap_since = 0.0
        self._probe_after = PROBE_SECONDS
        self._next_number += 1
        self.ended = frame.kind in (FrameKind.END, FrameKind.FAILURE)
        self._count_buffered(len(frame.payload))
        self._received += len(frame.payload)
        self._frames.put(frame)
        self._extend_window()

    def _request_missing(self) -> None:
        now = time.monotonic()
        self.gap_since = self.gap_since or now
        if now - self._retransmit_asked_at > RETRANSMIT_INTERVAL_SECONDS:
            self._retransmit_asked_at = now
            self._acknowledge(self, True)

    def probe_if_silent(self) -> None:
        """It has been silent; asks now and then whether something was lost."""
        now = time.monotonic()
        if now - max(self.last_frame_at, self._retransmit_asked_at) > self._probe_after:
            self._probe_after = min(max(2 * self._probe_after, PROBE_SECONDS), MAX_PROBE_SECONDS)
            self._retransmit_asked_at = now
            self._acknowledge(self, True)

    def probe_soon(self) -> None:
        """The connection was lost: whatever came meanwhile is missing."""
        self._probe_after = self._retransmit_asked_at = 0.0
        self.last_frame_at = min(self.last_frame_at, time.monotonic() - RETRANSMIT_INTERVAL_SECONDS)

    def _count_buffered(self, size: int) -> None:
        self._buffered += size
        self._total_buffered.bytes += size

    def _extend_window(self) -> None:
        """Lets more come in good time, unless too much waits here already."""
        limit = MAX_BUFFERED_BYTES if self._total_buffered.bytes < MAX_TOTAL_BUFFERED_BYTES else WINDOW_BYTES // 4
        if self._window_end - self._received <= WINDOW_BYTES // 2 and self._buffered <= limit and not self.ended:
            self._window_end = self._received + WINDOW_BYTES
            self._acknowledge(self, False)

    def fail(self, failure: Failure) -> None:
        """Ends the answer from this side."""
        if not self.ended:
            self.ended_by_front = True
            self.put(Frame(FrameKind.FAILURE, OUT_OF_BAND, failure.encode()))

    def abandon(self) -> None:
        """The caller has gone: whoever waits for a frame wakes up."""
        self.fail(Failure(499, "client_gone", "the caller has gone", "server_error", 0))

    def get(self, timeout: float) -> list[Frame]:
        """The frames that are there, at least one; empty when none came in time."""
        frames = self._frames.take(timeout)
        if frames:
            self._count_buffered(-self._buffered)
            self._extend_window()
        return frames

    def close(self) -> None:
        """Nobody reads any more."""
        self.ended = True
        self._frames.close()
        self._count_buffered(-self._buffered)
