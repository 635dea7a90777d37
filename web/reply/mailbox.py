"""Orders the frames of one request, detects gaps and applies backpressure. No I/O.

The buffer for a slow reader is bounded: when it is full, the window stays closed and the worker stops reading from the
upstream.
"""

import time
from collections.abc import Callable

from shared.protocol.messages import OUT_OF_BAND, Failure, Frame, FrameKind
from shared.protocol.reply_acks import WINDOW_BYTES, Ack
from web.reply.batch_queue import BatchQueue

#: Bytes buffered for one slow reader before its upstream is paused.
MAX_BUFFERED_BYTES = 1024 * 1024
#: Bytes buffered in all mailboxes of a front before each is held to a quarter of WINDOW_BYTES.
MAX_TOTAL_BUFFERED_BYTES = 128 * 1024 * 1024
#: Seconds of silence before the worker is asked for a retransmission; doubled each time, up to the maximum.
PROBE_SECONDS, MAX_PROBE_SECONDS = 1.0, 10.0
#: Minimum number of seconds between two retransmission requests for one gap.
RETRANSMIT_INTERVAL_SECONDS = 0.3


class BufferedBytes:
    """The number of bytes buffered in all mailboxes of a front."""

    def __init__(self) -> None:
        self.bytes = 0


class Mailbox:
    """The received frames of one request."""

    def __init__(
        self,
        request_id: str,
        total_buffered: BufferedBytes,
        acknowledge: Callable[["Mailbox", bool], None],
        overdue_at: float = float("inf"),
        on_overdue: Callable[[], None] = lambda: None,
    ) -> None:
        self.request_id = request_id
        #: Sends an acknowledgement; the flag asks the worker to retransmit from there.
        self._acknowledge = acknowledge
        self._frames: BatchQueue[Frame] = BatchQueue()
        self._next_number = 0
        self._tag: int | None = None
        self._total_buffered = total_buffered
        self._buffered = 0
        self._received = 0
        self._window_end = WINDOW_BYTES
        self._retransmit_requested_at = 0.0
        self._probe_after = PROBE_SECONDS
        #: When the last frame arrived, or the mailbox was opened; monotonic clock.
        self.last_frame_at = time.monotonic()
        #: Since when a frame has been missing, monotonic clock; 0 if none is.
        self.gap_since = 0.0
        #: Seconds since the epoch at which `on_overdue` is called if the mailbox is still open.
        self.overdue_at = overdue_at
        self.on_overdue = on_overdue
        self.ended = False
        #: Whether the front ended the reply, so that the worker may still be working on it.
        self.ended_by_front = False
        #: Whether the job vanished before any frame arrived.
        self.is_lost = False
        #: Whether the job has been enqueued: before that it can't have vanished from Redis.
        self.is_enqueued = False

    @property
    def has_started(self) -> bool:
        return self._tag is not None

    @property
    def position(self) -> tuple[int | None, int, int]:
        """Attempt tag, number of the next frame, and the total of bytes that the worker may send."""
        return self._tag, self._next_number, self._window_end

    def build_ack(self, *, retransmit: bool) -> Ack:
        return Ack(*self.position, retransmit)

    def put(self, frame: Frame) -> None:
        """Accepts the next frame; drops duplicates and frames of another attempt; asks for a missing one."""
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
        if frame.kind is not FrameKind.UNKNOWN:
            self._frames.put(frame)
        self._extend_window()

    def _request_missing(self) -> None:
        now = time.monotonic()
        self.gap_since = self.gap_since or now
        if now - self._retransmit_requested_at > RETRANSMIT_INTERVAL_SECONDS:
            self._retransmit_requested_at = now
            self._acknowledge(self, True)

    def probe_if_silent(self) -> None:
        """Asks for a retransmission after a silence, in case frames were lost."""
        now = time.monotonic()
        if now - max(self.last_frame_at, self._retransmit_requested_at) > self._probe_after:
            self._probe_after = min(max(2 * self._probe_after, PROBE_SECONDS), MAX_PROBE_SECONDS)
            self._retransmit_requested_at = now
            self._acknowledge(self, True)

    def probe_soon(self) -> None:
        """Makes the next check probe: the connection was lost, and frames with it."""
        self._probe_after = self._retransmit_requested_at = 0.0
        self.last_frame_at = min(self.last_frame_at, time.monotonic() - RETRANSMIT_INTERVAL_SECONDS)

    def _count_buffered(self, size: int) -> None:
        self._buffered += size
        self._total_buffered.bytes += size

    def _extend_window(self) -> None:
        """Extends the worker's window once half of it is used, unless too much is buffered."""
        limit = MAX_BUFFERED_BYTES if self._total_buffered.bytes < MAX_TOTAL_BUFFERED_BYTES else WINDOW_BYTES // 4
        if self._window_end - self._received <= WINDOW_BYTES // 2 and self._buffered <= limit and not self.ended:
            self._window_end = self._received + WINDOW_BYTES
            self._acknowledge(self, False)

    def fail(self, failure: Failure) -> None:
        if not self.ended:
            self.ended_by_front = True
            self.put(Frame(FrameKind.FAILURE, OUT_OF_BAND, failure.encode()))

    def abandon(self) -> None:
        """Wakes the greenlet that waits for a frame: the caller disconnected."""
        self.fail(Failure(499, "client_gone", "the caller disconnected", "server_error", 0))

    def get(self, timeout: float) -> list[Frame]:
        """Returns the buffered frames, after waiting up to `timeout` seconds for the first.

        Empty on timeout or `wake`.
        """
        frames = self._frames.take(timeout)
        if frames:
            self._count_buffered(-self._buffered)
            self._extend_window()
        return frames

    def wake(self) -> None:
        """Makes the greenlet that waits for a frame look around: the front is being stopped."""
        self._frames.wake()

    def close(self) -> None:
        self.ended = True
        self._frames.close()
        self._count_buffered(-self._buffered)
