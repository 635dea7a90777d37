"""A shared answer comes in the form that each caller asked for."""

import json
from typing import Any

import pytest

from shared.protocol.messages import Failure, Frame, FrameKind, Head
from shared.response.conversion.unfolding import DONE_EVENT
from web.replay.answers.answer_form import AnswerForm, FormedFrames

CHAT = "/chat/completions"
END = Frame(FrameKind.END, 9)
WHOLE = {
    "id": "1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "é"}, "finish_reason": "stop"}],
}


def head(content_type: str, status: int = 200) -> Frame:
    return Frame(FrameKind.HEAD, 0, Head(status, {"content-type": content_type, "x": "y"}).encode())


def data(payload: bytes) -> Frame:
    return Frame(FrameKind.DATA, 1, payload)


def event(**members: Any) -> bytes:
    return b"data: " + json.dumps({"id": "1", **members}).encode() + b"\n\n"


CHUNKS = [
    event(choices=[{"index": 0, "delta": {"content": "a"}, "finish_reason": None}], usage=None),
    event(choices=[{"index": 0, "delta": {"content": "b"}, "finish_reason": "stop"}], usage=None),
    event(choices=[], usage={"prompt_tokens": 1}),
]


def convert(form: AnswerForm, *batches: list[Frame]) -> tuple[Head, bytes]:
    formed = FormedFrames(form)
    frames = [frame for batch in batches for frame in formed.convert(batch)]
    assert (frames[0].kind, frames[-1].kind) == (FrameKind.HEAD, FrameKind.END)
    return Head.decode(frames[0].payload), b"".join(frame.payload for frame in frames[1:-1])


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_usage_is_hidden_wherever_the_stream_is_cut(size: int):
    stream = b"".join((*CHUNKS, DONE_EVENT))
    pieces = [[data(stream[start : start + size])] for start in range(0, len(stream), size)]
    _, body = convert(AnswerForm(CHAT, True, False), [head("text/event-stream")], *pieces, [END])
    assert body == b"".join(CHUNKS[:2]).replace(b', "usage": null', b"") + DONE_EVENT
    _, body = convert(AnswerForm(CHAT, True, True), [head("text/event-stream")], *pieces, [END])
    assert body == stream


def test_stream_becomes_an_object_with_its_headers():
    parts = [[head("text/event-stream"), data(CHUNKS[0])], [data(CHUNKS[1] + CHUNKS[2] + DONE_EVENT), END]]
    found, body = convert(AnswerForm(CHAT, False, True), *parts)
    assert found.headers == {"content-type": "application/json", "x": "y"}
    assert json.loads(body)["choices"][0]["message"]["content"] == "ab"
    assert json.loads(body)["usage"] == {"prompt_tokens": 1}


def test_object_becomes_a_stream():
    parts = [
        [head("application/json"), data(json.dumps(WHOLE).encode()[:20])],
        [data(json.dumps(WHOLE).encode()[20:])],
        [END],
    ]
    found, body = convert(AnswerForm(CHAT, True, False), *parts)
    assert found.headers["content-type"] == "text/event-stream"
    assert body.endswith(DONE_EVENT)
    assert "é" in body.decode()


@pytest.mark.parametrize(
    ("path", "frame"),
    [
        (CHAT, head("application/json", 400)),
        ("/embeddings", head("application/json")),
        ("/audio/speech", head("audio/mpeg")),
        (CHAT, Frame(FrameKind.HEAD, 0, b"unreadable")),
    ],
)
def test_everything_else_passes_as_it_is(path: str, frame: Frame):
    frames = [frame, data(b"x"), END]
    assert FormedFrames(AnswerForm(path, True, False)).convert(frames) == frames


def test_what_has_no_other_form_fails():
    formed = FormedFrames(AnswerForm(CHAT, True, False))
    (failed,) = formed.convert([head("application/json"), data(b"{}"), END])
    assert Failure.decode(failed.payload).code == "upstream_error"


def test_failure_passes_before_and_after_the_head():
    failure = Frame(FrameKind.FAILURE, 0, Failure(502, "upstream_eof", "broke off").encode())
    for form in (AnswerForm(CHAT, False, True), AnswerForm(CHAT, True, False)):
        assert FormedFrames(form).convert([failure]) == [failure]
        formed = FormedFrames(form)
        formed.convert([head("text/event-stream"), data(CHUNKS[0])])
        assert formed.convert([failure])[-1] == failure
