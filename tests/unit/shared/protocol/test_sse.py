"""Server-sent events are passed on whole, and read as the HTML standard says, however their packets are cut."""

import itertools
import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import ApiError
from shared.protocol.sse import EventBuffer, build_error_event, parse_events
from tests.unit.shared.protocol.sse_reference import interpret

#: Streams that the fuzz tries; FUZZ_EXAMPLES replaces it for a long run by hand.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
LINE_ENDS = [b"\n", b"\r\n", b"\r"]
FRAGMENTS = [
    *LINE_ENDS,
    *(b"\n", b"\r\n", b"\n\n", b"data: ", b"data:", b"data", b"event: error", b"event:", b"id: 1", b"retry: 3"),
    *(b":", b": ping", b"[DONE]", b"1", b'{"a": 1', b"\xf0\x9f\x98\x80", b" ", b"\x00", b"\xe2\x80\xa8", b"x" * 70),
]


def split_at(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(places)] or [b""]


def pass_parts(parts: list[bytes]) -> tuple[list[bytes], bytes]:
    """What passes with each part, and the rest."""
    events = EventBuffer()
    return [events.feed(part) for part in parts], events.flush()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.booleans(), st.lists(st.sampled_from(FRAGMENTS), max_size=30), st.lists(st.integers(0, 200), max_size=40))
def test_parser_agrees_with_the_standard(has_mark: bool, fragments: list[bytes], cuts: list[int]):
    stream = (b"\xef\xbb\xbf" if has_mark else b"") + b"".join(fragments)
    blocks, rest = pass_parts(split_at(stream, cuts))
    assert b"".join(blocks) + rest == stream
    parsed = [event for block in blocks for event in parse_events(block)]
    assert b"".join(event.raw for event in parsed) + rest == stream
    assert [(event.type, event.data) for event in parsed if event.data is not None] == interpret(stream)


def test_complete_events_pass_at_once():
    events = EventBuffer()
    assert events.feed(b"data: 1\n\ndata: 2\n\n") == b"data: 1\n\ndata: 2\n\n"
    assert events.flush() == b""


def test_partial_event_is_held_until_it_is_complete():
    events = EventBuffer()
    assert events.feed(b"data: 1\n\ndata: 2") == b"data: 1\n\n"
    assert events.feed(b"3\n") == b""
    assert events.feed(b"\ndata: 4\n\n") == b"data: 23\n\ndata: 4\n\n"


@pytest.mark.parametrize("end", [b"\n\n", b"\n\r", b"\n\r\n", b"\r\r", b"\r\r\n", b"\r\n\n", b"\r\n\r", b"\r\n\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_event_ends_with_an_empty_line_however_lines_end(end: bytes, size: int):
    stream = b"data: 1" + end + b"data: 2"
    blocks, rest = pass_parts([stream[at : at + size] for at in range(0, len(stream), size)])
    assert b"".join(blocks).rstrip() == b"data: 1"
    assert b"".join(blocks) + rest == stream
    assert EventBuffer().feed(b"data: 1" + end), "an event is held although it is complete"


def test_flush_returns_the_rest():
    events = EventBuffer()
    events.feed(b"data: [DONE]\n")
    assert events.flush() == b"data: [DONE]\n"


@pytest.mark.parametrize(
    ("event", "event_type", "data"),
    [
        (b'data:{"a":1}\n\n', b"", b'{"a":1}'),
        (b"data:  1\n\n", b"", b" 1"),
        (b"data: 1\nid: 7\nevent: error\nretry: 10\n\n", b"error", b"1"),
        (b"\xef\xbb\xbfdata: 1\r\r", b"", b"1"),
        (b": ping\ndata: [\n: ping\ndata: 1]\n\n", b"", b"[\n1]"),
        (b"data\n\n", b"", b""),
        (b"event: error\n\n", b"error", None),
        (b": ping\n\n", b"", None),
        (b"data: 1", b"", b"1"),
        ("data: a\u2028b\u0085c\n\n".encode(), b"", "a\u2028b\u0085c".encode()),
    ],
)
def test_fields_of_an_event_are_read(event: bytes, event_type: bytes, data: bytes | None):
    assert parse_events(event) == [(event, event_type, data)]


# Single line ends

OBJECTS = [b'{"choices": [{"delta": {"content": "%d"}}]}' % number for number in range(4)]


@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf", b": ping\n", b"id: 4\n"])
def test_lines_without_an_empty_one_pass_one_by_one(line_end: bytes, prefix: bytes):
    lines = [b"data: " + data + line_end for data in (*OBJECTS, b"[DONE]")]
    lines[0] = prefix + lines[0]
    blocks, rest = pass_parts(lines)
    assert blocks == [b"", lines[0] + lines[1], *lines[2:]]
    assert rest == b""
    assert [event.data for block in blocks for event in parse_events(block)] == [*OBJECTS, b"[DONE]"]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_lines_without_an_empty_one_pass_however_they_are_cut(size: int):
    stream = b"".join(b"event: a\r\ndata: " + data + b"\r\n" for data in OBJECTS) + b"data: [DONE]\r\n"
    blocks, rest = pass_parts([stream[at : at + size] for at in range(0, len(stream), size)])
    assert b"".join(blocks) + rest == stream
    assert rest in (b"", b"\n")
    events = [event for block in blocks for event in parse_events(block) if event.data is not None]
    assert [event.data for event in events] == [*OBJECTS, b"[DONE]"]
    assert [event.type for event in events[:4]] == [b"a"] * 4


def test_event_with_lines_that_are_no_objects_is_one():
    event = b'data: {"choices":\ndata: [{"delta": {}}]}\n\n'
    blocks, _ = pass_parts([event[:20], event[20:-1], event[-1:]])
    assert blocks == [b"", b"", event]
    assert [parsed.data for parsed in parse_events(event)] == [b'{"choices":\n[{"delta": {}}]}']


def test_buffer_knows_when_it_stands_within_an_event():
    events = EventBuffer()
    for data in OBJECTS[:2]:
        events.feed(b"data: " + data + b"\n")
    assert events.is_within_event
    events.feed(b"\n")
    assert not events.is_within_event


# Time


@pytest.mark.parametrize(
    "packet", [b"x", b"x\n", b"data: {\n", b"data: {}\n", b": ping\n", b"id: 1\n", b"\r", b"event: a\ndata: {}\r\n"]
)
@pytest.mark.parametrize("start", [b"data: ", b"data: {}\ndata: {}\n", b""])
def test_time_is_linear_in_the_length_of_a_stream(packet: bytes, start: bytes):
    def measure(count: int) -> float:
        events = EventBuffer()
        events.feed(start)
        started_at = time.process_time()
        for _ in range(count):
            events.feed(packet)
        return time.process_time() - started_at

    # A quadratic one takes a hundred times as long.
    assert measure(5000) < 40 * measure(500) + 0.5


def test_error_is_encoded_as_an_event():
    assert build_error_event(ApiError(502, "upstream_eof", "broke off")).startswith(
        b'data: {"error": {"message": "broke off"'
    )
