"""Renders the frames of a reply as an HTTP response: buffered, as a byte stream, or as server-sent events."""

import errno
import re
from collections.abc import Iterator, Mapping
from typing import Any

from flask import Response

from shared.errors import ApiError
from shared.protocol import sse
from shared.protocol.messages import Frame, Head
from shared.protocol.sse import EventBuffer
from web.request.reply_frames import FrameTimeout, ReplyFrames
from web.server import disconnect

EVENT_STREAM, JSON = "text/event-stream", "application/json"
#: How a stream ends whose response is neither server-sent events nor JSON, once its status has been sent.
NOT_A_STREAM = ApiError(
    502, "upstream_error", "the upstream's response is not a stream; ask for it without `stream`", "upstream_error"
)
HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
#: Timeout in seconds for replies without keep-alive comments; the request's own timeouts end them.
NO_TIMEOUT = 1e9


def render_reply(reply: ReplyFrames, keepalive: float) -> Response:
    """Renders the reply with the status of its head; a stream whose head is late starts with a keep-alive comment."""
    try:
        head, frames = reply.wait_for_head(keepalive if reply.wants_stream else NO_TIMEOUT)
        return render_after_head(reply, head, frames, keepalive)
    except FrameTimeout:
        return render_stream(reply, iter_deferred_events(reply, keepalive), 200, {"content-type": EVENT_STREAM})
    except BaseException:
        reply.close()
        raise


def render_after_head(reply: ReplyFrames, head: Head, frames: list[Frame], keepalive: float) -> Response:
    headers = {**select_valid(head.headers), **build_timing_headers(head)}
    content_type = head.headers.get("content-type", "").lower()
    if content_type.startswith(EVENT_STREAM):
        return render_stream(reply, iter_events(reply, frames, keepalive), head.status, headers)
    if content_type.startswith(JSON) or head.status >= 400:
        return render_buffered(reply, frames, head.status, headers)
    return render_stream(reply, iter_bytes(reply, frames), head.status, headers)


def render_buffered(reply: ReplyFrames, frames: list[Frame], status: int, headers: dict[str, str]) -> Response:
    """Sends the reply once it is complete, so that a caller never gets truncated JSON."""
    try:
        body = b"".join(reply.iter_body(frames, NO_TIMEOUT))
    finally:
        reply.close()
    return Response(body, status, headers)


def render_stream(reply: ReplyFrames, body: Iterator[bytes], status: int, headers: dict[str, str]) -> Response:
    """Sends the reply as it arrives; closing it cancels the job."""
    response = Response(body, status, {**headers, **STREAM_HEADERS})
    response.call_on_close(reply.close)
    return response


def iter_events(reply: ReplyFrames, frames: list[Frame], keepalive: float) -> Iterator[bytes]:
    """Yields server-sent events: a comment after each silence, an error event if the reply is incomplete."""
    event_buffer = EventBuffer()
    try:
        for data in reply.iter_body(frames, keepalive):
            events = event_buffer.feed(data) if data else build_keep_alive(event_buffer)
            if events:
                yield events
        yield event_buffer.flush()
    except ApiError as error:
        # An event of its own, also behind lines that no empty line has followed.
        yield (b"\n" if event_buffer.is_within_event else b"") + sse.build_error_event(error)


def build_keep_alive(event_buffer: EventBuffer) -> bytes:
    return sse.KEEP_ALIVE_LINE if event_buffer.is_within_event else sse.KEEP_ALIVE_COMMENT


def iter_deferred_events(reply: ReplyFrames, keepalive: float) -> Iterator[bytes]:
    """Yields the events of a stream whose status was sent before its head, so that errors can only be events."""
    yield sse.KEEP_ALIVE_COMMENT
    while True:
        try:
            head, frames = reply.wait_for_head(keepalive)
            break
        except FrameTimeout:
            yield sse.KEEP_ALIVE_COMMENT
        except ApiError as error:
            yield sse.build_error_event(error)
            return
    if head.headers.get("content-type", "").lower().startswith(EVENT_STREAM):
        yield from iter_events(reply, frames, keepalive)
        return
    yield render_as_event(reply, head, frames)


def render_as_event(reply: ReplyFrames, head: Head, frames: list[Frame]) -> bytes:
    """Returns JSON as one event. No other response fits into one: an event is text, and has no line feeds."""
    if not head.headers.get("content-type", "").lower().startswith(JSON):
        return sse.build_error_event(NOT_A_STREAM)
    try:
        body = b"".join(reply.iter_body(frames, NO_TIMEOUT))
    except ApiError as error:
        return sse.build_error_event(error)
    return b"data: " + body.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n\n"


def iter_bytes(reply: ReplyFrames, frames: list[Frame]) -> Iterator[bytes]:
    """Yields bytes as they arrive; resets the connection if the reply is incomplete, so that it can't look complete."""
    try:
        for data in reply.iter_body(frames, NO_TIMEOUT):
            if data:
                yield data
    except ApiError:
        disconnect.reset_on_close(reply.caller_socket)
        raise ConnectionResetError(errno.ECONNRESET, "the reply is incomplete") from None


def select_valid(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers whose values HTTP allows (RFC 9110 section 5.5); an upstream's others must not break the reply."""
    return {name: value for name, value in headers.items() if HEADER_VALUE.fullmatch(value)}


def build_timing_headers(head: Head) -> dict[str, Any]:
    return {
        "x-farm-attempts": str(head.attempts),
        "x-queue-wait-ms": str(head.queue_wait_ms),
        "openai-processing-ms": str(head.first_byte_ms),
    }
