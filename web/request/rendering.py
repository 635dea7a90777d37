"""Renders the frames of a reply as the HTTP response: whole, streamed or as server-sent events."""

import errno
from collections.abc import Iterator
from typing import Any

from flask import Response

from shared.errors import ApiError
from shared.protocol import sse
from shared.protocol.messages import Frame, Head
from shared.protocol.sse import WholeEvents
from web.request.pending import Pending, StillWaiting
from web.server import disconnect

EVENT_STREAM = "text/event-stream"
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
#: Seconds of patience for an answer that has no keep-alive; the request's own limits end it.
LONG = 1e9


def answer(pending: Pending, keepalive: float) -> Response:
    """The answer, its status decided by the first frame; a stream that has to wait long begins with a comment."""
    try:
        head, frames = pending.first(keepalive if pending.request.stream else LONG)
        return begun(pending, head, frames, keepalive)
    except StillWaiting:
        return streamed(pending, begun_late(pending, keepalive), 200, {"content-type": EVENT_STREAM})
    except BaseException:
        pending.close()
        raise


def begun(pending: Pending, head: Head, frames: list[Frame], keepalive: float) -> Response:
    """An answer whose head is here, by the kind of its body."""
    headers = {**head.headers, **timing_headers(head)}
    kind = head.headers.get("content-type", "").lower()
    if kind.startswith(EVENT_STREAM):
        return streamed(pending, events(pending, frames, keepalive), head.status, headers)
    if kind.startswith("application/json") or head.status >= 400:
        return whole(pending, frames, head.status, headers)
    return streamed(pending, binary(pending, frames), head.status, headers)


def whole(pending: Pending, frames: list[Frame], status: int, headers: dict[str, str]) -> Response:
    """An answer that is sent when all of it is there, so that never half a JSON reaches a caller."""
    try:
        body = b"".join(pending.body(frames, LONG))
    finally:
        pending.close()
    return Response(body, status, headers)


def streamed(pending: Pending, body: Iterator[bytes], status: int, headers: dict[str, str]) -> Response:
    """An answer that is sent as it comes; when the caller leaves, its job ends."""
    response = Response(body, status, {**headers, **STREAM_HEADERS})
    response.call_on_close(pending.close)
    return response


def events(pending: Pending, frames: list[Frame], keepalive: float) -> Iterator[bytes]:
    """Server-sent events, with comments in silence and an error event where the rest is missing."""
    whole_events = WholeEvents()
    try:
        for data in pending.body(frames, keepalive):
            complete = whole_events.add(data) if data else sse.COMMENT
            if complete:
                yield complete
        yield whole_events.rest()
    except ApiError as error:
        yield sse.error_event(error)


def begun_late(pending: Pending, keepalive: float) -> Iterator[bytes]:
    """A stream whose status was sent before its first frame: an error can only be an event now."""
    yield sse.COMMENT
    while True:
        try:
            head, frames = pending.first(keepalive)
            break
        except StillWaiting:
            yield sse.COMMENT
        except ApiError as error:
            yield sse.error_event(error)
            return
    if head.headers.get("content-type", "").lower().startswith(EVENT_STREAM):
        yield from events(pending, frames, keepalive)
        return
    yield late_answer(pending, frames)


def late_answer(pending: Pending, frames: list[Frame]) -> bytes:
    """An answer that is no stream, as the one event that a stream can carry it in."""
    try:
        body = b"".join(pending.body(frames, LONG))
    except ApiError as error:
        return sse.error_event(error)
    return b"data: " + body.replace(b"\n", b" ") + b"\n\n"


def binary(pending: Pending, frames: list[Frame]) -> Iterator[bytes]:
    """Bytes as they come; where the rest is missing the connection breaks, which no client takes for the end."""
    try:
        for data in pending.body(frames, LONG):
            if data:
                yield data
    except ApiError:
        disconnect.reset(pending.client)
        raise ConnectionResetError(errno.ECONNRESET, "the answer is not whole") from None


def timing_headers(head: Head) -> dict[str, Any]:
    """How the request came to its answer."""
    return {
        "x-farm-attempts": str(head.attempts),
        "x-queue-wait-ms": str(head.queue_wait_ms),
        "openai-processing-ms": str(head.first_byte_ms),
    }
