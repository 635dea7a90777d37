"""An answer that cost its caller no tokens: it is that to another request, and reports a usage of zero."""

from collections.abc import Iterator, Sequence

from shared.protocol.messages import Frame, FrameKind, Head
from shared.protocol.sse import EventBuffer, parse_events
from shared.response.rewriter import zero_event_usage, zero_usage
from shared.response.usage import USAGE_WORDS, may_report_usage
from web.request.cooperative import run_in_slices
from web.request.rendering import EVENT_STREAM, JSON

#: Bytes of a stream that are read at a time.
STEP_BYTES = 65_536
#: Bytes of a name before the word by which it is found, at most.
MAX_NAME_BYTES = 32


def build_free_answer(frames: Sequence[Frame]) -> list[Frame]:
    """The frames of a whole answer with a usage of zero, if it reports any; other requests get their turn meanwhile."""
    body = b"".join(frame.payload for frame in frames if frame.kind is FrameKind.DATA)
    content_type = Head.decode(frames[0].payload).headers.get("content-type", "").lower()
    if not may_report_usage(body) or not content_type.startswith((EVENT_STREAM, JSON)):
        return list(frames)
    zeroed = zero_stream_usage(body) if content_type.startswith(EVENT_STREAM) else zero_object_usage(body)
    return [frames[0], Frame(FrameKind.DATA, 1, zeroed), frames[-1]]


def zero_object_usage(body: bytes) -> bytes:
    """Leaves alone what comes before the first usage, which is megabytes of embeddings perhaps."""
    start = max(0, min(body.find(word) for word in USAGE_WORDS if word in body) - MAX_NAME_BYTES)
    rest = zero_usage(body[start:].decode(errors="surrogateescape"))
    return body[:start] + rest.encode(errors="surrogateescape")


def zero_stream_usage(stream: bytes) -> bytes:
    buffer, parts = EventBuffer(), list[bytes]()

    def read() -> Iterator[None]:
        for start in range(0, len(stream), STEP_BYTES):
            parts.append(zero_events_usage(buffer.feed(stream[start : start + STEP_BYTES])))
            yield
        parts.append(zero_events_usage(buffer.flush()))

    run_in_slices(read())
    return b"".join(parts)


def zero_events_usage(events: bytes) -> bytes:
    return b"".join(map(zero_event_usage, parse_events(events))) if may_report_usage(events) else events
