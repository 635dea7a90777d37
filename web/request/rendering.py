"""Renders the frames of a reply as the HTTP response: whole, streamed or as server-sent events."""

import errno
from collections.abc import Iterator
from typing import Any

from flask import Response

from shared.errors import ApiError
from shared.protocol import sse
from shared.protocol.messages import Frame, Head
from shared.protocol.sse import EventBuffer
from web.request.pending import FrameTimeout, PendingRequest
from web.server import disconnect

EVENT_STREAM = "text/event-stream"
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
#: Seconds of patience for an answer that has no keep-alive; the request's own limits end it.
NO_TIMEOUT = 1e9


def render_reply(pending: PendingRequest, keepalive: float) -> Response:
    """The answer, its status decided by the first frame; a stream that has to wait long begins with a comment."""
    try:
        head, frames = pending.wait_for_head(keepalive if pending.request.stream else NO_TIMEOUT)
        return render_begun(pending, head, frames, keepalive)
    except FrameTimeout:
        return render_stream(pending, iter_late_events(pending, keepalive), 200, {"content-type": EVENT_STREAM})
    except BaseException:
        pending.close()
        raise


def render_begun(pending: PendingRequest, head: Head, frames: list[Frame], keepalive: float) -> Response:
    """An answer whose head is here, by the kind of its body."""
    headers = {**head.headers, **build_timing_headers(head)}
    kind = head.headers.get("content-type", "").lower()
    if kind.startswith(EVENT_STREAM):
        return render_stream(pending, iter_events(pending, frames, keepalive), head.status, headers)
    if kind.startswith("application/json") or head.status >= 400:
        return render_whole(pending, frames, head.status, headers)
    return render_stream(pending, iter_bytes(pending, frames), head.status, headers)


def render_whole(pending: PendingRequest, frames: list[Frame], status: int, headers: dict[str, str]) -> Response:
    """An answer that is sent when all of it is there, so that never half a JSON reaches a caller."""
    try:
        body = b"".join(pending.iter_body(frames, NO_TIMEOUT))
    finally:
        pending.close()
    return Response(body, status, headers)


def render_stream(pending: PendingRequest, body: Iterator[bytes], status: int, headers: dict[str, str]) -> Response:
    """An answer that is sent as it comes; when the caller leaves, its job ends."""
    response = Response(body, status, {**headers, **STREAM_HEADERS})
    response.call_on_close(pending.close)
    return response


def iter_events(pending: PendingRequest, frames: list[Frame], keepalive: float) -> Iterator[bytes]:
    """Server-sent events, with comments in silence and an error event where the rest is missing."""
    whole_events = EventBuffer()
    try:
        for data in pending.iter_body(frames, keepalive):
            complete = whole_events.feed(data) if data else sse.KEEP_ALIVE_COMMENT
            if complete:
                yield complete
        yield whole_events.flush()
    except ApiError as error:
        yield sse.error_event(error)


def iter_late_events(pending: PendingRequest, keepalive: float) -> Iterator[bytes]:
    """A stream whose status was sent before its first frame: an error can only be an event now."""
    yield sse.KEEP_ALIVE_COMMENT
    while True:
        try:
            head, frames = pending.wait_for_head(keepalive)
            break
        except FrameTimeout:
            yield sse.KEEP_ALIVE_COMMENT
        except ApiError as error:
            yield sse.error_event(error)
            return
    if head.headers.get("content-type", "").lower().startswith(EVENT_STREAM):
        yield from iter_events(pending, frames, keepalive)
        return
    yield render_as_event(pending, frames)


def render_as_event(pending: PendingRequest, frames: list[Frame]) -> bytes:
    """An answer that is no stream, as the one event that a stream can carry it in."""
    try:
        body = b"".join(pending.iter_body(frames, NO_TIMEOUT))
    except ApiError as error:
        return sse.error_event(error)
    return b"data: " + body.replace(b"\n", b" ") + b"\n\n"


def iter_bytes(pending: PendingRequest, frames: list[Frame]) -> Iterator[bytes]:
    """Bytes as they come; where the rest is missing the connection breaks, which no client takes for the end."""
    try:
        for data in pending.iter_body(frames, NO_TIMEOUT):
            if data:
                yield data
    except ApiError:
        disconnect.reset_on_close(pending.client)
        raise ConnectionResetError(errno.ECONNRESET, "the answer is not whole") from None


def build_timing_headers(head: Head) -> dict[str, Any]:
    """How the request came to its answer."""
    return {
        "x-farm-attempts": str(head.attempts),
        "x-queue-wait-ms": str(head.queue_wait_ms),
        "openai-processing-ms": str(head.first_byte_ms),
    }
