"""An answer that cost its caller nothing: it is that to another request, and reports no usage, attempts and waiting."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from shared.protocol.messages import Frame, FrameKind, Head
from shared.protocol.sse import EventBuffer, find_last_end, parse_events
from shared.response.rewriter import zero_event_usage, zero_usage
from web.request.cooperative import run_in_slices
from web.request.rendering import EVENT_STREAM, JSON

#: Finds a usage quickly, which nearly all of a stream has none of, or null (shared/response/usage.py).
REPORTED_USAGE = re.compile(rb'(?:sage\w*|eval_count)"\s*:\s*+(?!null)')
#: Bytes of a stream that are read at a time.
STEP_BYTES = 65_536
#: Bytes of a name before the word by which it is found, at most.
MAX_NAME_BYTES = 32


def build_free_answer(frames: Sequence[Frame]) -> list[Frame]:
    """The frames of a whole answer with a usage of zero, if it reports any; other requests get their turn meanwhile."""
    head = replace(Head.decode(frames[0].payload), attempts=0, queue_wait_ms=0, first_byte_ms=0)
    body = b"".join(frame.payload for frame in frames if frame.kind is FrameKind.DATA)
    content_type = head.headers.get("content-type", "").lower()
    reported = REPORTED_USAGE.search(body)
    if reported and content_type.startswith(EVENT_STREAM):
        body = zero_stream_usage(body, reported.start())
    elif reported and content_type.startswith(JSON):
        body = zero_object_usage(body, reported.start())
    data = [Frame(FrameKind.DATA, 1, body)] if body else []
    return [Frame(FrameKind.HEAD, 0, head.encode()), *data, frames[-1]]


def zero_object_usage(body: bytes, position: int) -> bytes:
    """`position`: where the first usage is; what comes before it passes, which may be megabytes of embeddings."""
    start = max(0, position - MAX_NAME_BYTES)
    rest = zero_usage(body[start:].decode(errors="surrogateescape"))
    return body[:start] + rest.encode(errors="surrogateescape")


def zero_stream_usage(stream: bytes, position: int) -> bytes:
    """`position`: where the first usage is; the events before that pass."""
    buffer, begin = EventBuffer(), find_last_end(stream[:position])
    parts = [stream[:begin]]

    def read() -> Iterator[None]:
        for start in range(begin, len(stream), STEP_BYTES):
            parts.append(zero_events_usage(buffer.feed(stream[start : start + STEP_BYTES])))
            yield
        parts.append(zero_events_usage(buffer.flush()))

    run_in_slices(read())
    return b"".join(parts)


def zero_events_usage(events: bytes) -> bytes:
    return b"".join(map(zero_event_usage, parse_events(events))) if REPORTED_USAGE.search(events) else events
