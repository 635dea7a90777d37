"""2xx responses are judged by their bytes and by what was asked for, before anything of them is passed on."""

import json
from itertools import product

import pytest

from workers.response.error_sniffer import (
    HELD_BYTES,
    MAX_HELD_BYTES,
    MAX_SNIFFED_BYTES,
    ErrorSniffer,
    HeldBytes,
    IncompleteResponse,
    InvalidResponse,
    Kind,
)

CHAT, RESPONSES, EMBEDDINGS = "/chat/completions", "/responses", "/embeddings"
SPEECH, TRANSCRIPTIONS = "/audio/speech", "/audio/transcriptions"
EVENTS, JSON = "text/event-stream; charset=utf-8", "application/json"
CHUNK = b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
#: Labels that upstreams put on anything.
LABELS = ["", "text/plain", "text/html; charset=utf-8", "application/octet-stream", JSON, "TEXT/Event-Stream"]


def sniff(
    *parts: bytes, path: str = CHAT, label: str = "", stream: bool = False, delimited: bool = True
) -> list[bytes]:
    sniffer = ErrorSniffer(path, label, wants_stream=stream, delimited=delimited)
    passed = [sniffer.feed(part) if not sniffer.is_done else part for part in parts]
    return [*passed, sniffer.flush()]


def find_error(*parts: bytes, **options: object) -> InvalidResponse:
    with pytest.raises(InvalidResponse) as caught:
        sniff(*parts, **options)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize("label", LABELS)
def test_stream_passes_from_its_first_event_on_whatever_its_label(label: str):
    parts = (b": hello\n\n", b'data: {"choi', b'ces": []}\n\ndata: x', b"\n\n")
    assert sniff(*parts, label=label, stream=True) == [b"", b"", b"".join(parts[:3]), parts[3], b""]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_stream_lines_may_end_in_any_way(end: bytes):
    first = end.join([b": comment", b"", b"event: x", b'data:{"choices": []}', b"", b""])
    assert sniff(first, label=EVENTS, stream=True)[0] == first


@pytest.mark.parametrize(
    "start",
    [
        b"\xef\xbb\xbf",
        b"\r\n" * 50_000,
        b"id: 7\n",
        b"retry: 3000\n\n",
        b"data\n\n",
        b"unknown: 1\n",
        b'data: {"type": "ping"}\n\n',
    ],
)
def test_what_stands_before_the_first_event_of_a_response_passes_with_it(start: bytes):
    for size in (1, 1000):
        stream = start + CHUNK
        parts = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert b"".join(sniff(*parts, label=EVENTS, stream=True)).lstrip() == stream.lstrip()


@pytest.mark.parametrize(
    ("path", "payload"),
    [
        ("/images/generations", {"type": "image_generation.partial_image", "detail": "high"}),
        (TRANSCRIPTIONS, {"type": "transcript.text.delta", "delta": "error"}),
        (SPEECH, {"type": "speech.audio.delta", "audio": "AA"}),
    ],
)
def test_events_of_other_endpoints_pass(path: str, payload: object):
    stream = b"data: " + json.dumps(payload).encode() + b"\n\n"
    assert sniff(stream, path=path, label=EVENTS) == [stream, b""]


def test_stream_whose_events_are_single_lines_passes_line_by_line():
    line = CHUNK.rstrip() + b"\n"
    assert sniff(line, line, stream=True) == [line, line, b""]


@pytest.mark.parametrize("label", LABELS)
def test_json_passes_when_it_is_complete_whatever_its_label(label: str):
    assert sniff(b'\xef\xbb\xbf\n{"choices"', b": []}", label=label) == [b"", b"", b'\n{"choices": []}']


@pytest.mark.parametrize("path", [SPEECH, TRANSCRIPTIONS])
@pytest.mark.parametrize(
    "body", [b"plain text", b"\xff\xfb\x90", b"12 monkeys", b": colon", b"<i>so</i>", b"{1} first\n"]
)
def test_audio_and_text_pass_as_they_are(path: str, body: bytes):
    for label in ("", "text/plain", "audio/mpeg"):
        assert b"".join(sniff(body, b"more", path=path, label=label)) == body + b"more"


def test_speech_passes_as_it_comes_and_a_transcript_when_it_is_complete():
    assert sniff(b"\xff\xfb", b"\x90", path=SPEECH) == [b"\xff\xfb", b"\x90", b""]
    assert sniff(b"Hello ", b"world", path=TRANSCRIPTIONS, label="text/plain") == [b"", b"", b"Hello world"]


def test_long_bodies_are_not_held_for_ever():
    part = b'{"data": "' + b"x" * MAX_HELD_BYTES
    assert sniff(part, b'"}', path=EMBEDDINGS) == [part, b'"}', b""]
    assert sniff(b": " + b"x" * MAX_SNIFFED_BYTES, label=EVENTS)[0]


def test_bodies_held_by_all_sniffers_are_bounded(monkeypatch: pytest.MonkeyPatch):
    before = HELD_BYTES.total
    monkeypatch.setattr(HeldBytes, "MAX_BYTES", before + 250_000)
    part = b'{"data": "' + b"x" * 100_000
    first, second, third = (ErrorSniffer(EMBEDDINGS) for _ in range(3))
    assert (first.feed(part), second.feed(part)) == (b"", b"")
    assert third.feed(part) == part
    assert first.feed(b'"}') == b""
    assert first.flush() == part + b'"}'
    del second
    assert HELD_BYTES.total == before


@pytest.mark.parametrize("charset", ["iso-8859-1", "GBK", '"windows-1252"'])
def test_json_in_another_character_set_becomes_utf_8(charset: str):
    body = '{"choices": [{"message": {"content": "ü"}}]}'
    encoded = body.encode(charset.strip('"'))
    assert b"".join(sniff(encoded, label=f"application/json; charset={charset}")) == body.encode()
    assert find_error(b'{"choices": ["\xff"]}', label="application/json; charset=nonsense")


ERRORS = [
    {"error": {"message": "no"}},
    {"error": "no"},
    {"object": "error", "message": "no", "code": 400},
    {"type": "error", "error": {"type": "overloaded_error", "message": "no"}},
    {"code": 1302, "msg": "no"},
    {"code": "rate_limit_daily", "message": "no"},
    {"detail": "no"},
    {"detail": [{"loc": ["body"], "msg": "no", "type": "missing"}]},
    {"success": False, "message": "no"},
    {"status": "error", "message": "no"},
    {"errors": ["no"]},
    {"base_resp": {"status_code": 1004, "status_msg": "no"}},
    [{"error": {"code": 429, "message": "no", "status": "RESOURCE_EXHAUSTED"}}],
]


#: Errors that only completions have.
COMPLETION_ERRORS = [
    {"id": None, "object": None, "choices": None, "error": {"code": 503, "message": "no"}},
    {"choices": [], "error": {"message": "no"}},
    {"choices": [{"delta": {"content": ""}, "finish_reason": "error", "error": {"message": "no"}}]},
]
PATHS = [CHAT, "/completions", EMBEDDINGS, RESPONSES, "/moderations", "/images/generations"]


@pytest.mark.parametrize(
    ("payload", "path"), [*product(ERRORS, PATHS), *product(COMPLETION_ERRORS, (CHAT, "/completions"))]
)
def test_error_object_does_not_pass(payload: object, path: str):
    body = json.dumps(payload).encode()
    for label in ("", JSON, EVENTS):
        assert find_error(body, path=path, label=label).body == body
    event = b"data: " + body + b"\n\n"
    for label in ("", JSON, EVENTS):
        assert find_error(b": hi\n\n" + event, path=path, label=label, stream=True).body == body


@pytest.mark.parametrize(
    "event", [b'event: error\ndata: {"code": "429"}\n\n', b'data: {"code": "429"}\nevent: error\n\n']
)
@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_event_named_error_does_not_pass(event: bytes, path: str):
    parts = [event[at : at + 1] for at in range(len(event))]
    assert find_error(*parts, path=path, stream=True).body == b'{"code": "429"}'


@pytest.mark.parametrize("payload", [{}, {"id": "1"}, {"choices": None}, {"choices": {}}, [], [{}], 7, "text", None])
def test_json_without_choices_is_no_completion(payload: object):
    assert find_error(json.dumps(payload).encode())


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b" \r\n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"<!DOCTYPE html><html><title>Sign\n in &amp; go</title>", "Sign in & go"),
        (b"\n <HTML><body>x", "page"),
        (b'<?xml version="1.0"?><Error/>', "page"),
        (b"upstream overloaded", "upstream overloaded"),
        (b"\x1f\x8b\x00\x00", "bytes"),
        (b'{"choices": [{"mes', "invalid JSON"),
    ],
)
@pytest.mark.parametrize("label", ["", JSON, "text/plain"])
def test_body_that_is_no_response_does_not_pass(body: bytes, reason: str, label: str):
    assert reason in str(find_error(body, label=label))


@pytest.mark.parametrize("path", [SPEECH, TRANSCRIPTIONS])
@pytest.mark.parametrize("body", [b"", b"<!doctype html><p>", b"<html>", b'{"error": {"message": "no"}}'])
def test_page_error_and_nothing_are_no_audio_and_no_transcript(path: str, body: bytes):
    for label in ("", "audio/mpeg", "text/plain", "text/html"):
        assert find_error(*(body[at : at + 3] for at in range(0, len(body), 3)), path=path, label=label)


@pytest.mark.parametrize(
    "stream", [b"data: [DONE]\n\n", b": nothing\n\n", b"", b'data: {"id": "1"}\n\ndata: [DONE]\n\n', b"data: hello\n\n"]
)
def test_stream_without_an_event_of_a_response_does_not_pass(stream: bytes):
    assert "without an event" in str(find_error(stream, label=EVENTS, stream=True))


@pytest.mark.parametrize(
    ("path", "payload"),
    [
        (RESPONSES, {"object": "response", "error": None, "status": "completed"}),
        (RESPONSES, {"object": "response", "status": "failed", "error": {"message": "no"}}),
        (CHAT, {"choices": [{"message": {"content": "a"}}], "error": {"code": 1}}),
        (CHAT, {"choices": [{"message": {"content": "a"}}], "code": 0, "msg": "ok"}),
        (EMBEDDINGS, {"data": [{"embedding": []}], "error": None, "status": "error"}),
        (EMBEDDINGS, [[0.1, 0.2]]),
        ("/moderations", {"results": [], "code": 7, "message": "fine"}),
        ("/models/m", {"id": "m", "object": "model", "status": "error", "detail": "old"}),
        ("/models/m", {"status": "active", "description": "A model"}),
        (TRANSCRIPTIONS, {"text": "", "error": None}),
    ],
)
def test_response_that_mentions_an_error_passes(path: str, payload: object):
    body = json.dumps(payload).encode()
    assert sniff(body, path=path) == [b"", body]


def test_json_that_breaks_off_is_incomplete_where_http_marks_no_end():
    with pytest.raises(IncompleteResponse):
        sniff(b'{"choices": [{"mes', delimited=False)
    with pytest.raises(IncompleteResponse):
        sniff(b'{"data": "' + b"x" * MAX_SNIFFED_BYTES, path=EMBEDDINGS, delimited=False)


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [(CHAT, b'{"choices": []}', Kind.JSON), (CHAT, CHUNK, Kind.EVENTS), (SPEECH, b"RIFF", Kind.OTHER)],
)
def test_kind_is_known_once_bytes_have_passed(path: str, body: bytes, kind: Kind):
    sniffer = ErrorSniffer(path, "x/y")
    sniffer.feed(body)
    sniffer.flush()
    assert sniffer.kind is kind
