"""The frames of one reply: numbered, retained until acknowledged, retransmitted on request. No I/O."""

import random
from collections.abc import Callable
from typing import Protocol

from gevent.event import Event

from shared.protocol.messages import Failure, Frame, FrameKind, Head
from shared.protocol.reply_acks import WINDOW_BYTES, Ack

#: Seconds without an acknowledgement after which the front is given up; it sends one at least every ten.
FRONT_TIMEOUT_SECONDS = 30.0


class Sender(Protocol):
    """Publishes the frames of streams."""

    def notify(self, stream: "ReplyStream", size: int, *, urgent: bool = False) -> None:
        """The stream has `size` more bytes to send. They may be coalesced with others unless they are urgent."""

    def is_full(self) -> bool:
        """Whether the backlog is above its bound."""

    def wait_for_room(self) -> None:
        """Waits while the backlog is above its bound."""


class Registry(Protocol):
    """Finds the streams that fronts acknowledge."""

    def stream_begins(self, stream: "ReplyStream") -> None:
        """The stream has its first frame."""

    def stream_ends(self, stream: "ReplyStream") -> None:
        """The stream has its last frame."""


def ignore() -> None:
    """A handler that does nothing."""


class ReplyStream:
    """The frames of one reply."""

    def __init__(
        self, sender: Sender, registry: Registry, channel: str, job_key: str, on_caller_gone: Callable[[], object]
    ) -> None:
        self._sender = sender
        self._registry = registry
        self.channel = channel
        self.job_key = job_key
        self._tag = random.getrandbits(32)
        #: Whether the job has to be marked as started: the head is to be sent, and the end is not known yet.
        self._needs_mark = False
        #: Encoded frames that have not been acknowledged, and the number of the first.
        self._unacknowledged: list[bytes] = []
        self._first_number = 0
        #: Number of the next frame to send.
        self._next_number = 0
        #: Body bytes that are in no frame yet.
        self._unframed: list[bytes] = []
        self._body_bytes = 0
        self._window_end = WINDOW_BYTES
        self._room = Event()
        self._has_started = False
        self._is_dropped = False
        self._on_caller_gone = on_caller_gone

    # Frames to send

    def send_head(self, head: Head) -> None:
        """Sends status and headers, together with data that follows immediately."""
        self._needs_mark = True
        self._append(FrameKind.HEAD, head.encode())

    def send_data(self, data: bytes) -> None:
        """Sends bytes of the body."""
        if not self._is_dropped:
            self._unframed.append(data)
            self._body_bytes += len(data)
            self._sender.notify(self, len(data))

    def send_end(self) -> None:
        """Ends the reply: the body is complete."""
        self._needs_mark = False
        self._append(FrameKind.END, b"")

    def send_failure(self, failure: Failure) -> None:
        """Ends the reply with a failure, before or in the middle of the body."""
        self._needs_mark = False
        self._append(FrameKind.FAILURE, failure.encode())

    def is_full(self) -> bool:
        """Whether the sender has to wait: the caller reads slowly, or the backlog of all streams is full."""
        return self._sender.is_full() or self._exceeds_window()

    def wait_for_room(self) -> None:
        """Waits while the stream is full; drops it if the front stays silent for FRONT_TIMEOUT_SECONDS."""
        while self._exceeds_window():
            self._room.clear()
            if not self._room.wait(FRONT_TIMEOUT_SECONDS):
                self.drop()
        self._sender.wait_for_room()

    def _exceeds_window(self) -> bool:
        return self._body_bytes >= self._window_end and not self._is_dropped

    def _append(self, kind: FrameKind, payload: bytes) -> None:
        if self._is_dropped:
            return
        self._frame_data()
        if not self._has_started:
            self._has_started = True
            self._registry.stream_begins(self)
        self._retain(kind, payload)
        self._sender.notify(self, len(payload), urgent=True)
        if kind is not FrameKind.HEAD:
            self._registry.stream_ends(self)

    def _frame_data(self) -> None:
        """Puts all collected bytes into one frame."""
        if self._unframed:
            payload = self._unframed[0] if len(self._unframed) == 1 else b"".join(self._unframed)
            self._unframed.clear()
            self._retain(FrameKind.DATA, payload)

    def _retain(self, kind: FrameKind, payload: bytes) -> None:
        self._unacknowledged.append(
            Frame(kind, self._first_number + len(self._unacknowledged), payload, self._tag).encode()
        )

    # The outbox

    def take_unsent(self) -> bytes:
        """All unsent frames as one message; b'' for none."""
        self._frame_data()
        message = b"".join(self._unacknowledged[self._next_number - self._first_number :])
        self._next_number = self._first_number + len(self._unacknowledged)
        return message

    def take_mark(self) -> bool:
        """Whether the job has to be marked as started; True at most once per reply.

        Without the mark, orphan recovery would retry a job whose reply has started (I6). A reply that ends in the same
        message needs none.
        """
        needs_mark, self._needs_mark = self._needs_mark, False
        return needs_mark

    # Acknowledgements

    def acknowledge(self, ack: Ack) -> int:
        """Drops acknowledged frames, extends the window and retransmits missing frames; returns how many."""
        next_number = self._first_number + len(self._unacknowledged)
        if (
            self._is_dropped
            or ack.tag not in (None, self._tag)
            or not self._first_number <= ack.expected <= next_number
        ):
            return 0
        del self._unacknowledged[: ack.expected - self._first_number]
        self._first_number = ack.expected
        self._window_end = max(self._window_end, ack.window_end)
        self._room.set()
        retransmitted = self._next_number - ack.expected if ack.retransmit else 0
        self._next_number = ack.expected if ack.retransmit else max(self._next_number, ack.expected)
        if retransmitted > 0:
            self._sender.notify(self, 0, urgent=True)
        return max(0, retransmitted)

    def abandon(self) -> None:
        """Ends the reply without a last frame, because the attempt was cancelled: the caller has gone."""
        self.drop()
        if self._has_started:
            self._registry.stream_ends(self)

    def drop(self) -> None:
        """Discards all frames, now and later, because the front no longer waits for them."""
        self._is_dropped = True
        self._unacknowledged.clear()
        self._unframed.clear()
        self._room.set()
        self._on_caller_gone()

    def retained_bytes(self) -> int:
        """Bytes of the frames that have not been acknowledged."""
        return sum(map(len, self._unacknowledged))
