"""A stream becomes the one object that the same request without `stream` would have got."""

import json
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from shared.response.conversion.folding import StreamFolder
from shared.response.endpoints import InvalidResponse
from tests.raw_upstream import DONE, chat_chunk, event

CHAT, TEXT, RESPONSES = "/chat/completions", "/completions", "/responses"


def fold(*events: bytes, path: str = CHAT, size: int = 10_000) -> dict[str, Any]:
    folder, stream = StreamFolder(path), b"".join(events)
    for at in range(0, len(stream), size):
        folder.feed(stream[at : at + size])
    return json.loads(folder.finish())


def delta(index: int = 0, finish_reason: str | None = None, **members: Any) -> bytes:
    choice = {"index": index, "delta": members, "finish_reason": finish_reason}
    return event({"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


def call(index: int | None = 0, **members: Any) -> bytes:
    place = {} if index is None else {"index": index}
    return delta(tool_calls=[{**place, **members}])


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_texts_are_joined_and_the_rest_is_kept(size: int):
    folded = fold(
        b": hi\n\n",
        delta(role="assistant", content="", refusal=None),
        delta(content="Hel", reasoning_content="I "),
        chat_chunk("lo", system_fingerprint="fp", service_tier="default"),
        delta(reasoning_content="think"),
        delta(finish_reason="length"),
        event({"id": "c1", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}),
        DONE,
        size=size,
    )
    completion = ChatCompletion.model_validate(folded)
    (choice,) = completion.choices
    assert (choice.message.content, choice.finish_reason, choice.message.role) == ("Hello", "length", "assistant")
    assert folded["choices"][0]["message"]["reasoning_content"] == "I think"
    assert (folded["object"], folded["system_fingerprint"], folded["usage"]["total_tokens"]) == (
        "chat.completion",
        "fp",
        3,
    )


def test_choices_are_told_apart_and_in_order():
    folded = fold(
        delta(1, content="b"), delta(0, content="a"), delta(1, content="B"), delta(1, "stop"), delta(0, "length")
    )
    assert [(c["index"], c["message"]["content"], c["finish_reason"]) for c in folded["choices"]] == [
        (0, "a", "length"),
        (1, "bB", "stop"),
    ]


@pytest.mark.parametrize(
    "chunks",
    [
        [
            call(id="a", type="function", function={"name": "f", "arguments": ""}),
            call(function={"arguments": '{"x"'}),
            call(1, id="b", type="function", function={"name": "g", "arguments": "{}"}),
            call(function={"arguments": ": 1}"}),
        ],
        # The whole name again in each chunk, and ids.
        [
            call(id="a", type="function", function={"name": "f", "arguments": '{"x"'}),
            call(id="a", type="function", function={"name": "f", "arguments": ": 1}"}),
            call(1, id="b", type="function", function={"name": "g", "arguments": "{}"}),
        ],
        # Without an index.
        [
            call(None, id="a", type="function", function={"name": "f", "arguments": '{"x": 1}'}),
            call(None, id="b", type="function", function={"name": "g", "arguments": "{"}),
            call(None, function={"arguments": "}"}),
        ],
    ],
)
def test_tool_calls_are_put_together(chunks: list[bytes]):
    folded = fold(*chunks, delta(finish_reason="tool_calls"), DONE)
    message = ChatCompletion.model_validate(folded).choices[0].message
    calls = [(tool.id, tool.function.name, tool.function.arguments) for tool in message.tool_calls or ()]
    assert calls == [("a", "f", '{"x": 1}'), ("b", "g", "{}")]
    assert message.content is None
    assert "index" not in folded["choices"][0]["message"]["tool_calls"][0]


def test_log_probabilities_and_audio_are_joined():
    first = {"index": 0, "delta": {"audio": {"id": "x", "data": "AA"}}, "logprobs": {"content": [{"token": "a"}]}}
    second = {
        "index": 0,
        "delta": {"audio": {"data": "BB"}},
        "logprobs": {"content": [{"token": "b"}], "refusal": None},
    }
    folded = fold(event({"choices": [first]}), event({"choices": [second]}))
    assert folded["choices"][0]["message"]["audio"] == {"id": "x", "data": "AABB"}
    assert [token["token"] for token in folded["choices"][0]["logprobs"]["content"]] == ["a", "b"]


def test_text_completion_is_joined():
    def part(text: str, reason: str | None) -> bytes:
        return event(
            {"id": "c", "created": 1, "model": "m", "choices": [{"index": 0, "text": text, "finish_reason": reason}]}
        )

    folded = fold(part("Hel", None), part("lo", None), part("", "stop"), DONE, path=TEXT)
    assert Completion.model_validate(folded).choices[0].text == "Hello"
    assert folded["object"] == "text_completion"


ITEM = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
}


@pytest.mark.parametrize("output", [[ITEM], [], None])
def test_response_is_taken_from_its_last_event_and_from_its_items(output: list[Any] | None):
    base = {"id": "r1", "object": "response", "created_at": 1, "model": "m"} | {
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
    }
    folded = fold(
        event({"type": "response.created", "response": {**base, "status": "in_progress", "output": []}}),
        event({"type": "response.output_text.delta", "output_index": 0, "delta": "Hel"}),
        event({"type": "response.output_item.done", "output_index": 0, "item": ITEM}),
        event({"type": "response.completed", "response": {**base, "status": "completed", "output": output}}),
        path=RESPONSES,
    )
    assert Response.model_validate(folded).output_text == "Hello"
    assert folded["status"] == "completed"


def test_response_without_items_has_the_text_of_its_deltas():
    deltas = [event({"type": "response.output_text.delta", "output_index": 0, "delta": text}) for text in ("Hel", "lo")]
    folded = fold(*deltas, event({"response": {"id": "r"}}, "response.incomplete"), path=RESPONSES)
    assert (folded["output"][0]["content"][0]["text"], folded["status"]) == ("Hello", "incomplete")


@pytest.mark.parametrize(
    ("path", "last"),
    [
        (CHAT, event({"error": {"message": "no"}})),
        (CHAT, event({"message": "no"}, "error")),
        (RESPONSES, event({"type": "response.failed", "response": {"error": {"message": "no"}}})),
        (RESPONSES, event({"type": "error", "message": "no"})),
    ],
)
def test_stream_that_ends_with_an_error_has_no_object(path: str, last: bytes):
    with pytest.raises(InvalidResponse):
        fold(delta(content="a"), last, path=path)


def test_stream_that_is_too_long_has_no_object():
    folder, part = StreamFolder(CHAT), b": " + b"x" * 9 * 1024 * 1024
    folder.feed(part)
    with pytest.raises(InvalidResponse):
        folder.feed(part)
