from shared.errors import ApiError
from shared.protocol.sse import WholeEvents, error_event


def test_whole_events_pass_at_once():
    events = WholeEvents()
    assert events.add(b"data: 1\n\ndata: 2\n\n") == b"data: 1\n\ndata: 2\n\n"
    assert events.rest() == b""


def test_half_an_event_waits_for_its_other_half():
    events = WholeEvents()
    assert events.add(b"data: 1\n\ndata: 2") == b"data: 1\n\n"
    assert events.add(b"3\n") == b""
    assert events.add(b"\ndata: 4\n\n") == b"data: 23\n\ndata: 4\n\n"


def test_other_line_ends_are_ends_too():
    assert WholeEvents().add(b"data: 1\r\n\r\ndata:") == b"data: 1\r\n\r\n"


def test_an_end_that_comes_in_two_pieces_is_an_end():
    events = WholeEvents()
    assert [events.add(part) for part in (b"data: 1\r\n", b"\r", b"\ndata: 2")] == [b"", b"", b"data: 1\r\n\r\n"]
    assert events.rest() == b"data: 2"


def test_what_is_left_at_a_good_end_is_not_lost():
    events = WholeEvents()
    events.add(b"data: [DONE]\n")
    assert events.rest() == b"data: [DONE]\n"


def test_an_error_is_an_event():
    assert error_event(ApiError(502, "upstream_eof", "broke off")).startswith(
        b'data: {"error": {"message": "broke off"'
    )
