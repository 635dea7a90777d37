"""The opening of a response is judged alike however it is split, and as a plain reference judges it."""

import json
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.response.endpoints import InvalidResponse
from shared.response.error_shapes import has_error_mark
from workers.response.error_sniffer import ErrorSniffer, IncompleteResponse, Kind

CHAT = "/chat/completions"
CHUNK = {"choices": [{"index": 0, "delta": {"content": "a"}}]}
PAYLOADS = st.sampled_from(
    [
        CHUNK,
        {"choices": []},
        {"choices": None},
        {"choices": [], "error": "no"},
        {"error": {"message": "no"}},
        {"code": "429", "message": "no"},
        {"type": "ping"},
        {"id": "1"},
        {},
        [],
        7,
        "text",
    ]
)
LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])
LINES = st.one_of(
    PAYLOADS.map(lambda payload: f"data: {json.dumps(payload)}"),
    st.sampled_from(
        ["", "", ": ping", "event: message", "id: 7", "retry: 3", "data: [DONE]", "data:", "data", "odd: 1"]
    ),
)
STREAMS = st.lists(st.tuples(LINES, LINE_ENDS).map("".join), max_size=8).map(lambda lines: "".join(lines).encode())
JSON_BODIES = st.tuples(
    st.sampled_from([b"", b"\xef\xbb\xbf", b"\n \r\n"]), PAYLOADS.map(json.dumps).map(str.encode)
).map(b"".join)
BODIES = st.one_of(
    STREAMS, JSON_BODIES, st.binary(max_size=60), st.sampled_from([b"<!doctype html>", b" <HTML>", b"no"])
)
LABELS = st.sampled_from(["", "text/event-stream", "application/json", "text/html", "text/plain; charset=gbk"])
CUTS = st.lists(st.integers(0, 200), max_size=12)


def judge(parts: list[bytes], path: str, label: str, *, stream: bool, delimited: bool) -> Any:
    """What passes, and as what; else the reason."""
    sniffer = ErrorSniffer(path, label, wants_stream=stream, delimited=delimited)
    try:
        passed = [sniffer.feed(part) if not sniffer.is_done else part for part in parts]
        return b"".join([*passed, sniffer.flush()]).lstrip(b"\r\n "), sniffer.kind
    except (InvalidResponse, IncompleteResponse) as error:
        return str(error)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    body=BODIES,
    cuts=CUTS,
    label=LABELS,
    stream=st.booleans(),
    delimited=st.booleans(),
    path=st.sampled_from([CHAT, "/responses", "/audio/transcriptions"]),
)
def test_judgement_does_not_depend_on_packets(
    body: bytes, cuts: list[int], label: str, stream: bool, delimited: bool, path: str
):
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    parts = [body[start:end] for start, end in pairwise(edges) if end > start]
    options = {"stream": stream, "delimited": delimited}
    whole = judge([body] if body else [], path, label, **options)
    assert judge(parts, path, label, **options) == whole
    assert judge([body[at : at + 1] for at in range(len(body))], path, label, **options) == whole


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    payload=PAYLOADS
    | st.dictionaries(
        st.sampled_from(["choices", "error", "id", "detail"]), st.none() | st.lists(st.none()) | st.text()
    )
)
def test_whole_completion_passes_if_it_has_choices_and_no_error(payload: Any):
    body = json.dumps(payload).encode()
    has_choices = isinstance(payload, dict) and isinstance(payload.get("choices"), list)
    is_response = has_choices and not payload.get("error")
    expected = (
        (body, Kind.JSON) if is_response else "an error object" if has_error_mark(payload) else "JSON without `choices`"
    )
    assert judge([body], CHAT, "", stream=False, delimited=True) == expected
