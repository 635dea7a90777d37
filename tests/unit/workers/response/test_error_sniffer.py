import pytest

from workers.response.error_sniffer import MAX_SNIFFED_BYTES, ErrorSniffer, InvalidResponse

STREAM, JSON = "text/event-stream; charset=utf-8", "application/json"


def passed(kind: str, *parts: bytes) -> list[bytes]:
    opening = ErrorSniffer(kind)
    found = [opening.feed(part) if not opening.is_done else part for part in parts]
    return [*found, opening.flush()]


def test_a_stream_passes_from_its_first_whole_event_on():
    parts = (b": hello\n\n", b'data: {"choi', b'ces": []}\n\ndata: x', b"\n\n")
    assert passed(STREAM, *parts) == [b"", b"", b"".join(parts[:3]), parts[3], b""]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_whatever_ends_its_lines(end: bytes):
    first = b": comment" + end + b"event: x" + end[: len(end) // 2] + b'data: {"a": 1}' + end
    assert passed(STREAM, first)[0] == first


def test_an_answer_in_json_passes_when_it_is_whole():
    assert passed(JSON, b'{"choices"', b": []}") == [b"", b"", b'{"choices": []}']


def test_other_bodies_pass_as_they_come():
    assert passed("audio/mpeg", b"a", b"b") == [b"a", b"b", b""]
    assert passed("", b"", b"b") == [b"", b"b", b""]


def test_what_is_too_long_for_an_error_passes():
    long = b'{"data": "' + b"x" * MAX_SNIFFED_BYTES
    assert passed(JSON, long, b'"}') == [long, b'"}', b""]
    assert passed(STREAM, b": " + b"x" * MAX_SNIFFED_BYTES)[0]


@pytest.mark.parametrize(
    ("kind", "body", "error"),
    [
        (JSON, b'{"error": {"message": "no"}}', b'{"error": {"message": "no"}}'),
        (JSON, b'{"error": "no"}', b'{"error": "no"}'),
        (JSON, b"", b""),
        (JSON, b"<html>", b""),
        (STREAM, b'data: {"error": {"message": "no"}}\n\n', b'{"error": {"message": "no"}}'),
        (STREAM, b'event: error\ndata: {"type": "error", "message": "no"}\n\n', b'{"type": "error", "message": "no"}'),
        (STREAM, b'data: {"error": "no"}', b'{"error": "no"}'),
        (STREAM, b"data: [DONE]\n\n", b""),
        (STREAM, b": nothing\n\n", b""),
        (STREAM, b"", b""),
    ],
)
def test_an_error_in_disguise_does_not_pass(kind: str, body: bytes, error: bytes):
    with pytest.raises(InvalidResponse) as found:
        passed(kind, body)
    assert found.value.body == error


def test_a_page_for_people_is_no_answer():
    with pytest.raises(InvalidResponse):
        ErrorSniffer("text/html; charset=utf-8")


@pytest.mark.parametrize(
    "body",
    [
        b'{"object": "response", "error": null, "status": "completed"}',
        b'{"object": "response", "status": "failed", "error": {"message": "no"}}',
        b'{"choices": [], "error": {"code": 1}}',
        b"[1]",
        b"12",
    ],
)
def test_an_answer_that_speaks_of_an_error_is_one(body: bytes):
    assert passed(JSON, body) == [b"", body]


def test_only_a_body_that_is_no_stream_counts_as_begun():
    for kind, begun in ((JSON, True), (STREAM, False)):
        opening = ErrorSniffer(kind)
        assert not opening.has_held_body
        opening.feed(b": ")
        assert opening.has_held_body is begun
