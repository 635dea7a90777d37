"""Server-sent events are passed on whole."""

import pytest

from shared.errors import ApiError
from shared.protocol.sse import EventBuffer, build_error_event


def test_complete_events_pass_at_once():
    events = EventBuffer()
    assert events.feed(b"data: 1\n\ndata: 2\n\n") == b"data: 1\n\ndata: 2\n\n"
    assert events.flush() == b""


def test_partial_event_is_held_until_it_is_complete():
    events = EventBuffer()
    assert events.feed(b"data: 1\n\ndata: 2") == b"data: 1\n\n"
    assert events.feed(b"3\n") == b""
    assert events.feed(b"\ndata: 4\n\n") == b"data: 23\n\ndata: 4\n\n"


def test_event_may_end_with_crlf():
    assert EventBuffer().feed(b"data: 1\r\n\r\ndata:") == b"data: 1\r\n\r\n"


@pytest.mark.parametrize("end", [b"\n\n", b"\n\r", b"\n\r\n", b"\r\r", b"\r\r\n", b"\r\n\n", b"\r\n\r", b"\r\n\r\n"])
def test_event_ends_with_an_empty_line_however_lines_end(end: bytes):
    events = EventBuffer()
    passed = events.feed(b"data: 1" + end + b"data: 2")
    assert passed.rstrip() == b"data: 1"
    assert passed + events.flush() == b"data: 1" + end + b"data: 2"


def test_event_end_may_be_split_over_chunks():
    events = EventBuffer()
    assert [events.feed(part) for part in (b"data: 1\r\n", b"\r", b"\ndata: 2")] == [b"", b"", b"data: 1\r\n\r\n"]
    assert events.flush() == b"data: 2"


def test_flush_returns_the_rest():
    events = EventBuffer()
    events.feed(b"data: [DONE]\n")
    assert events.flush() == b"data: [DONE]\n"


def test_error_is_encoded_as_an_event():
    assert build_error_event(ApiError(502, "upstream_eof", "broke off")).startswith(
        b'data: {"error": {"message": "broke off"'
    )
