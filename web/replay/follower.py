"""One caller of a shared run: its place in the answer, and its entry in the request log."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from shared.errors import ApiError
from shared.protocol.messages import Frame, RelayRequest
from web.replay.answers.answer_form import AnswerForm, FormedFrames
from web.replay.limit_turn import LimitTurn
from web.replay.shared_run import SharedRun
from web.reply.batch_queue import BatchQueue
from web.request.pending import CLIENT_GONE
from web.request.reply_frames import FrameTimeout, ReplyFrames
from web.server import disconnect
from web.server.disconnect import DisconnectWatcher


class Follower(ReplyFrames):
    """The frames of a shared run for one caller."""

    def __init__(
        self,
        run: SharedRun,
        request: RelayRequest,
        form: AnswerForm | None,
        caller_socket: Any,
        on_close: "Callable[[Follower], None]",
        turn: LimitTurn | None = None,
    ) -> None:
        """`form`: None for that of the run; `turn`: what is to be awaited before the first frame."""
        self.request = request
        self._formed = FormedFrames(form) if form else None
        self.caller_socket = caller_socket
        self.unread_bytes = 0
        self.run = run
        self._on_close = on_close
        self._frames: BatchQueue[Frame] = BatchQueue()
        #: Whether the caller has left, and whether it has had all of the answer.
        self.is_gone = self.is_served = False
        self._turn = turn
        #: What the caller got in place of an answer, because its turn did not come.
        self.refusal: ApiError | None = None
        self._is_closed = False
        self._disconnect_watcher = DisconnectWatcher(caller_socket, self._leave)
        run.add(self)

    @property
    def wants_stream(self) -> bool:
        return self.request.stream

    def put(self, frames: Sequence[Frame]) -> None:
        """Takes more of the answer from the run."""
        for frame in frames:
            self.unread_bytes += len(frame.payload)
            self._frames.put(frame)

    def wait_for_frames(self, timeout: float) -> list[Frame]:
        gives_up_at = time.monotonic() + timeout
        self._wait_for_turn(gives_up_at)
        while True:
            if self.is_gone:
                raise CLIENT_GONE
            if frames := self._frames.take(gives_up_at - time.monotonic()):
                self.unread_bytes = 0
                self.run.note_read()
                self.is_served = self.run.has_ended
                frames = self._formed.convert(frames) if self._formed else frames
            if frames:
                return frames
            if time.monotonic() >= gives_up_at:
                raise FrameTimeout

    def _wait_for_turn(self, gives_up_at: float) -> None:
        """Raises FrameTimeout, ApiError."""
        while self._turn and not self._has_turn(self._turn):
            if self.is_gone:
                raise CLIENT_GONE
            if time.monotonic() >= gives_up_at:
                raise FrameTimeout
            self._turn.wait(gives_up_at - time.monotonic())

    def _has_turn(self, turn: LimitTurn) -> bool:
        try:
            return turn.has_come()
        except ApiError as error:
            self.refusal = error
            raise

    def _leave(self) -> None:
        self.is_gone = True
        self._frames.wake()
        if self._turn:
            self._turn.wake()

    def end_overdue(self) -> None:
        """Called when the caller has not read its answer within the time that any request may take."""
        disconnect.abort(self.caller_socket)

    def find_outcome(self) -> tuple[int, str]:
        """Status and error code, as the request log has them."""
        failure = (self._formed and self._formed.failure) or self.run.failure
        if failure:
            return failure.status, failure.code
        if not self.is_served:
            return self.run.status or CLIENT_GONE.status, CLIENT_GONE.code
        return self.run.status, ""

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._disconnect_watcher.stop()
        self._frames.close()
        self.run.remove(self)
        self._on_close(self)
