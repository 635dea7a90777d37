"""The reply of the playground as server-sent events: where the request is, what comes, and what it came to."""

from collections.abc import Callable, Generator, Iterator

import gevent
from pydantic import BaseModel

from shared.errors import ApiError
from shared.protocol.messages import Frame, Head
from shared.protocol.sse import KEEP_ALIVE_COMMENT, EventBuffer, encode_event
from web.admin.playground.progress import Progress
from web.admin.playground.reply_text import ReadReply, read_events, read_reply
from web.admin.playground.schemas import Admitted, Piece, Started
from web.request.pending import PendingRequest
from web.request.rendering import EVENT_STREAM
from web.request.reply_frames import FrameTimeout

#: Seconds between two events while the request waits.
WAIT_SECONDS = 1.0
#: Bytes of a reply that is no stream of events, beyond which it is cut.
MAX_BUFFERED_BYTES = 4 * 1024 * 1024
LOST_WORKER = ApiError(502, "worker_lost", "the worker process that should serve the request has died", "server_error")


class PlaygroundReply:
    """The events of one request."""

    def __init__(
        self, pending_request: PendingRequest, progress: Progress, admitted: Admitted, is_lost: Callable[[], bool]
    ) -> None:
        """`is_lost` tells whether nobody will reply any more."""
        self._pending_request = pending_request
        self._progress = progress
        self._admitted = admitted
        self._is_lost = is_lost
        #: What the reply says of an error.
        self._message = ""

    def iter_events(self) -> Iterator[bytes]:
        """All events; leaving it early cancels the request."""
        status, error = 0, None
        try:
            yield build_event("admitted", self._admitted)
            head, frames = yield from self._iter_wait()
            status = head.status
            yield build_event("started", self._describe_start(head))
            is_stream = head.headers.get("content-type", "").lower().startswith(EVENT_STREAM)
            yield from self._iter_stream(frames) if is_stream else self._iter_whole(frames)
        except ApiError as failure:
            status, error = failure.status, failure
        finally:
            self._pending_request.close()
        code, message = (error.code, error.message) if error else ("", self._message)
        yield build_event("ended", self._progress.describe_end(status, code, message, gevent.sleep))

    def _iter_wait(self) -> Generator[bytes, None, tuple[Head, list[Frame]]]:
        """Returns the head and the frames after it. Raises ApiError."""
        while True:
            try:
                return self._pending_request.wait_for_head(WAIT_SECONDS)
            except FrameTimeout:
                if self._is_lost():
                    self._pending_request.close(LOST_WORKER)
                    raise LOST_WORKER from None
                yield build_event("waiting", self._progress.describe_wait())

    def _describe_start(self, head: Head) -> Started:
        credential = self._progress.find_credential()
        return Started(
            status=head.status,
            attempts=head.attempts,
            queue_wait_ms=head.queue_wait_ms,
            first_byte_ms=head.first_byte_ms,
            content_type=head.headers.get("content-type", ""),
            credential=credential,
            credential_name=self._progress.find_name(credential),
        )

    def _iter_stream(self, frames: list[Frame]) -> Iterator[bytes]:
        event_buffer = EventBuffer()
        for data in self._pending_request.iter_body(frames, WAIT_SECONDS):
            if not data:
                yield KEEP_ALIVE_COMMENT
            elif events := event_buffer.feed(data):
                yield self._build_piece(events, read_events(events))
        if rest := event_buffer.flush():
            yield self._build_piece(rest, read_events(rest))

    def _iter_whole(self, frames: list[Frame]) -> Iterator[bytes]:
        body = bytearray()
        for data in self._pending_request.iter_body(frames, WAIT_SECONDS):
            body += data[: MAX_BUFFERED_BYTES - len(body)]
            if not data:
                yield KEEP_ALIVE_COMMENT
        yield self._build_piece(bytes(body), read_reply(bytes(body)))

    def _build_piece(self, raw: bytes, read: ReadReply) -> bytes:
        self._message = read.error or self._message
        return build_event("piece", Piece(raw=raw.decode(errors="replace"), text=read.text))


def build_event(name: str, fields: BaseModel) -> bytes:
    return encode_event(fields.model_dump_json(), name).encode()
