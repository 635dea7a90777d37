"""One object becomes the events that the same request with `stream` would have got."""

import json
from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from shared.protocol.sse import parse_events
from shared.response.conversion.folding import StreamFolder
from shared.response.conversion.unfolding import unfold
from tests.raw_upstream import chat_completion

CHAT, TEXT, RESPONSES = "/chat/completions", "/completions", "/responses"
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
TOOL_CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
CHAT_MESSAGES = [
    {"role": "assistant", "content": "Hello", "refusal": None, "reasoning_content": "I think"},
    {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL, {**TOOL_CALL, "id": "b"}]},
    {"role": "assistant", "content": None, "refusal": "I can't"},
]
RESPONSE = {
    "id": "r1",
    "object": "response",
    "created_at": 1,
    "model": "m",
    "status": "completed",
    "parallel_tool_calls": False,
    "tool_choice": "auto",
    "tools": [],
    "output": [
        {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "thought"}]},
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
        },
        {"id": "fc_1", "type": "function_call", "call_id": "a", "name": "f", "arguments": "{}", "status": "completed"},
    ],
}


def values(stream: bytes) -> list[Any]:
    """The JSON of the events but `[DONE]`."""
    data = [event.data for event in parse_events(stream) if event.data is not None]
    return [json.loads(value) for value in data if value != b"[DONE]"]


def refold(path: str, stream: bytes) -> Any:
    folder = StreamFolder(path)
    folder.feed(stream)
    return json.loads(folder.finish())


def test_openais_sdk_puts_the_chunks_together_again():
    choices = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": reason}
        for index, (message, reason) in enumerate(zip(CHAT_MESSAGES, ("stop", "tool_calls", "stop"), strict=True))
    ]
    stream = unfold(CHAT, chat_completion(choices=choices, usage=USAGE), wants_usage=True)
    assert stream.endswith(b"data: [DONE]\n\n")
    state = ChatCompletionStreamState()
    for value in values(stream):
        state.handle_chunk(ChatCompletionChunk.model_validate(value))
    completion = state.get_final_completion()
    assert [choice.finish_reason for choice in completion.choices] == ["stop", "tool_calls", "stop"]
    assert completion.choices[0].message.content == "Hello"
    tools = completion.choices[1].message.tool_calls or ()
    assert [(tool.id, tool.function.arguments) for tool in tools] == [("a", '{"x": 1}'), ("b", '{"x": 1}')]
    assert completion.choices[2].message.refusal == "I can't"
    assert completion.usage is not None
    assert refold(CHAT, stream)["choices"][1:] == choices[1:]


def test_chat_completion_survives_both_ways():
    completion = chat_completion("Hello", usage=USAGE, system_fingerprint="fp")
    folded = refold(CHAT, unfold(CHAT, completion, wants_usage=True))
    folded["choices"][0].pop("logprobs")
    assert folded == completion


def test_usage_is_sent_only_to_who_asked_for_it():
    assert b"usage" not in unfold(CHAT, chat_completion(usage=USAGE), wants_usage=False)


@pytest.mark.parametrize("choice", [{"text": "Hello"}, {"message": {"content": "Hello"}}])
def test_text_completion_becomes_chunks(choice: dict[str, Any]):
    stream = unfold(TEXT, {"id": "c", "choices": [{**choice, "index": 0, "finish_reason": "stop"}]}, wants_usage=True)
    assert [value["choices"][0]["text"] for value in values(stream)] == ["Hello", ""]
    assert refold(TEXT, stream)["choices"][0]["text"] == "Hello"


def test_response_becomes_the_events_of_the_responses_api():
    stream = unfold(RESPONSES, RESPONSE, wants_usage=False)
    events = [TypeAdapter(ResponseStreamEvent).validate_python(value) for value in values(stream)]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    types = [event.type for event in events]
    assert types[0] == "response.created"
    assert types[-1] == "response.completed"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "Hello"
    assert {"response.function_call_arguments.done", "response.reasoning_summary_text.delta"} <= set(types)
    assert [event.type.decode() for event in parse_events(stream)] == types
    assert refold(RESPONSES, stream) == RESPONSE


@pytest.mark.parametrize("status", ["failed", "incomplete"])
def test_response_ends_with_the_event_of_its_status(status: str):
    stream = unfold(RESPONSES, {**RESPONSE, "status": status}, wants_usage=False)
    assert values(stream)[-1]["type"] == f"response.{status}"


@pytest.mark.parametrize(
    "payload", [{"choices": []}, {"choices": [None]}, {"choices": [{}]}, {"choices": [{"message": "x", "index": "?"}]}]
)
def test_odd_completion_becomes_a_stream_all_the_same(payload: dict[str, Any]):
    for path in (CHAT, TEXT):
        assert unfold(path, payload, wants_usage=True).endswith(b"data: [DONE]\n\n")
    assert values(unfold(RESPONSES, payload, wants_usage=True))[-1]["type"] == "response.completed"
