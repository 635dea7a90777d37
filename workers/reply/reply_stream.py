"""The frames of one response: numbered, kept until the front has confirmed them, sent again when it asks; no I/O."""

import random
from collections.abc import Callable
from typing import Protocol

from gevent.event import Event

from shared.protocol.messages import Failure, Frame, FrameKind, Head
from shared.protocol.reply_acks import WINDOW_BYTES, Ack

#: Seconds without a word of a front after which nobody waits there: one that does speaks every ten.
FRONT_TIMEOUT_SECONDS = 30.0


class Sender(Protocol):
    """Who sends what a stream has."""

    def notify(self, stream: "ReplyStream", size: int, *, urgent: bool = False) -> None:
        """The stream has more to send, which may wait a little for company unless it is urgent."""

    def is_full(self) -> bool:
        """Whether too much is on its way."""

    def wait_for_room(self) -> None:
        """Waits while too much is on its way."""


class Registry(Protocol):
    """Keeps streams so that their fronts can acknowledge them."""

    def stream_begins(self, stream: "ReplyStream") -> None:
        """The stream has its first frame."""

    def stream_ends(self, stream: "ReplyStream") -> None:
        """The stream has its last frame."""


def ignore() -> None:
    """The default handler of a caller that has gone."""


class ReplyStream:
    """The frames of one response."""

    def __init__(
        self, sender: Sender, registry: Registry, channel: str, job_key: str, on_caller_gone: Callable[[], object]
    ) -> None:
        self._sender = sender
        self._registry = registry
        self.channel = channel
        self.job_key = job_key
        self._tag = random.getrandbits(32)
        #: Whether a head is on its way whose end is not, so that the job has to be marked.
        self._needs_mark = False
        #: Encoded frames that are not confirmed, the first of them with this number.
        self._unacknowledged: list[bytes] = []
        self._first_number = 0
        #: Number of the frame that is sent next.
        self._next_number = 0
        #: Bytes that came and are no frame yet.
        self._unframed: list[bytes] = []
        self._body_bytes = 0
        self._window_end = WINDOW_BYTES
        self._room = Event()
        self._has_started = False
        self._is_dropped = False
        self._on_caller_gone = on_caller_gone

    # What comes

    def send_head(self, head: Head) -> None:
        """The status; goes out together with what follows at once."""
        self._needs_mark = True
        self._append(FrameKind.HEAD, head.encode())

    def send_data(self, data: bytes) -> None:
        """Bytes of the body."""
        if not self._is_dropped:
            self._unframed.append(data)
            self._body_bytes += len(data)
            self._sender.notify(self, len(data))

    def send_end(self) -> None:
        """The body is whole."""
        self._needs_mark = False
        self._append(FrameKind.END, b"")

    def send_failure(self, failure: Failure) -> None:
        """There is no answer, or no more of it."""
        self._needs_mark = False
        self._append(FrameKind.FAILURE, failure.encode())

    def is_full(self) -> bool:
        """Whether more has to wait: for the caller, who reads slowly, or for Redis."""
        return self._sender.is_full() or self._exceeds_window()

    def wait_for_room(self) -> None:
        """Waits until more may come."""
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
        """Bytes that came together become one frame."""
        if self._unframed:
            payload = self._unframed[0] if len(self._unframed) == 1 else b"".join(self._unframed)
            self._unframed.clear()
            self._retain(FrameKind.DATA, payload)

    def _retain(self, kind: FrameKind, payload: bytes) -> None:
        self._unacknowledged.append(
            Frame(kind, self._first_number + len(self._unacknowledged), payload, self._tag).encode()
        )

    # What goes out

    def take_unsent(self) -> bytes:
        """Everything that is to be sent, as one message."""
        self._frame_data()
        message = b"".join(self._unacknowledged[self._next_number - self._first_number :])
        self._next_number = self._first_number + len(self._unacknowledged)
        return message

    def take_mark(self) -> bool:
        """Whether the job has to be marked as begun, once, because the answer goes on after this message.

        Without it a worker that finds the job orphaned would try it again (I6).
        """
        needs_mark, self._needs_mark = self._needs_mark, False
        return needs_mark

    # What the front says

    def acknowledge(self, ack: Ack) -> int:
        """Forgets what the front has, lets more come, and sends again what is missing; returns how many frames."""
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
        """The attempt was ended, because nobody waits for the answer."""
        self.drop()
        if self._has_started:
            self._registry.stream_ends(self)

    def drop(self) -> None:
        """Nobody waits for the answer any more; whatever else comes is not kept."""
        self._is_dropped = True
        self._unacknowledged.clear()
        self._unframed.clear()
        self._room.set()
        self._on_caller_gone()

    def retained_bytes(self) -> int:
        """Bytes that are kept."""
        return sum(map(len, self._unacknowledged))
