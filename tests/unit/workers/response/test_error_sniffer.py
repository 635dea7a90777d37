"""Error responses with status 200 are found before anything is passed on."""

import pytest

from workers.response.error_sniffer import MAX_SNIFFED_BYTES, ErrorSniffer, InvalidResponse

STREAM, JSON = "text/event-stream; charset=utf-8", "application/json"


def sniff(kind: str, *parts: bytes) -> list[bytes]:
    sniffer = ErrorSniffer(kind)
    passed = [sniffer.feed(part) if not sniffer.is_done else part for part in parts]
    return [*passed, sniffer.flush()]


def test_stream_passes_from_its_first_complete_event_on():
    parts = (b": hello\n\n", b'data: {"choi', b'ces": []}\n\ndata: x', b"\n\n")
    assert sniff(STREAM, *parts) == [b"", b"", b"".join(parts[:3]), parts[3], b""]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_stream_events_may_end_with_any_line_ending(end: bytes):
    first = b": comment" + end + b"event: x" + end[: len(end) // 2] + b'data: {"a": 1}' + end
    assert sniff(STREAM, first)[0] == first


def test_json_response_passes_when_it_is_complete():
    assert sniff(JSON, b'{"choices"', b": []}") == [b"", b"", b'{"choices": []}']


def test_other_bodies_pass_at_once():
    assert sniff("audio/mpeg", b"a", b"b") == [b"a", b"b", b""]
    assert sniff("", b"", b"b") == [b"", b"b", b""]


def test_body_too_long_for_an_error_passes():
    long = b'{"data": "' + b"x" * MAX_SNIFFED_BYTES
    assert sniff(JSON, long, b'"}') == [long, b'"}', b""]
    assert sniff(STREAM, b": " + b"x" * MAX_SNIFFED_BYTES)[0]


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
def test_error_with_status_200_does_not_pass(kind: str, body: bytes, error: bytes):
    with pytest.raises(InvalidResponse) as caught:
        sniff(kind, body)
    assert caught.value.body == error


def test_html_page_is_an_invalid_response():
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
def test_response_that_mentions_an_error_passes(body: bytes):
    assert sniff(JSON, body) == [b"", body]


def test_only_a_body_that_is_not_a_stream_counts_as_held():
    for kind, is_held in ((JSON, True), (STREAM, False)):
        sniffer = ErrorSniffer(kind)
        assert not sniffer.has_held_body
        sniffer.feed(b": ")
        assert sniffer.has_held_body is is_held
