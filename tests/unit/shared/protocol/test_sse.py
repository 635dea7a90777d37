from shared.errors import ApiError
from shared.protocol.sse import EventBuffer, build_error_event


def test_whole_events_pass_at_once():
    events = EventBuffer()
    assert events.feed(b"data: 1\n\ndata: 2\n\n") == b"data: 1\n\ndata: 2\n\n"
    assert events.flush() == b""


def test_half_an_event_waits_for_its_other_half():
    events = EventBuffer()
    assert events.feed(b"data: 1\n\ndata: 2") == b"data: 1\n\n"
    assert events.feed(b"3\n") == b""
    assert events.feed(b"\ndata: 4\n\n") == b"data: 23\n\ndata: 4\n\n"


def test_other_line_ends_are_ends_too():
    assert EventBuffer().feed(b"data: 1\r\n\r\ndata:") == b"data: 1\r\n\r\n"


def test_an_end_that_comes_in_two_pieces_is_an_end():
    events = EventBuffer()
    assert [events.feed(part) for part in (b"data: 1\r\n", b"\r", b"\ndata: 2")] == [b"", b"", b"data: 1\r\n\r\n"]
    assert events.flush() == b"data: 2"


def test_what_is_left_at_a_good_end_is_not_lost():
    events = EventBuffer()
    events.feed(b"data: [DONE]\n")
    assert events.flush() == b"data: [DONE]\n"


def test_an_error_is_an_event():
    assert build_error_event(ApiError(502, "upstream_eof", "broke off")).startswith(
        b'data: {"error": {"message": "broke off"'
    )
