"""Turns one object into the events that a caller gets who asked for a stream (OpenAI API reference). No I/O."""

import json
from collections.abc import Iterator
from typing import Any

from shared.response.endpoints import CHAT_PATH, RESPONSES_PATH

DONE_EVENT = b"data: [DONE]\n\n"


def unfold(path: str, payload: dict[str, Any], *, wants_usage: bool) -> bytes:
    """The events of a stream that says the same. `wants_usage`: whether the caller asked for the usage."""
    if path == RESPONSES_PATH:
        return b"".join(
            encode_event({**event, "sequence_number": number}, event["type"])
            for number, event in enumerate(iter_response_events(payload))
        )
    chunks = iter_chunks(payload, is_chat=path == CHAT_PATH, wants_usage=wants_usage)
    return b"".join(map(encode_event, chunks)) + DONE_EVENT


def encode_event(value: dict[str, Any], name: str = "") -> bytes:
    data = json.dumps(value, ensure_ascii=False).encode(errors="replace")
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + data + b"\n\n"


def iter_chunks(payload: dict[str, Any], *, is_chat: bool, wants_usage: bool) -> Iterator[dict[str, Any]]:
    """For each choice a chunk with all of its content, and one with its finish reason; then the usage."""
    frame = {name: value for name, value in payload.items() if name not in ("choices", "usage", "object")}
    frame["object"] = "chat.completion.chunk" if is_chat else "text_completion"
    choices = [choice for choice in payload["choices"] if isinstance(choice, dict)]
    for position, choice in enumerate(choices):
        index = choice.get("index", position)
        content, end = build_chat_parts(choice) if is_chat else build_text_parts(choice)
        rest = {name: value for name, value in choice.items() if name not in ("index", "message", "delta", "text")}
        yield {**frame, "choices": [{"index": index, **content, **rest, "finish_reason": None}]}
        finish_reason = choice.get("finish_reason") or "stop"
        yield {**frame, "choices": [{"index": index, **end, "logprobs": None, "finish_reason": finish_reason}]}
    usage = payload.get("usage")
    if wants_usage and isinstance(usage, dict):
        yield {**frame, "choices": [], "usage": usage}


def build_chat_parts(choice: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the chunk with the content has, and what the last one has."""
    message = choice.get("message") or choice.get("delta")
    delta = dict(message) if isinstance(message, dict) else {"content": choice.get("text")}
    delta = {"role": "assistant", **{name: value for name, value in delta.items() if value is not None}}
    calls = delta.get("tool_calls")
    if isinstance(calls, list):
        delta["tool_calls"] = [
            {"index": index, **call} if isinstance(call, dict) else call for index, call in enumerate(calls)
        ]
    return {"delta": delta}, {"delta": {}}


def build_text_parts(choice: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    message = choice.get("message")
    text = choice.get("text") or (message.get("content") if isinstance(message, dict) else None)
    return {"text": text or ""}, {"text": ""}


def iter_response_events(response: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The events of a response: its beginning, each item with its parts, and its end."""
    begun = {**response, "status": "in_progress", "output": [], **({"usage": None} if "usage" in response else {})}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    output = response.get("output")
    for index, item in enumerate(output if isinstance(output, list) else ()):
        if isinstance(item, dict):
            yield from iter_item_events(item, index)
    status = response.get("status")
    end = status if status in ("failed", "incomplete") else "completed"
    yield {"type": f"response.{end}", "response": response}


def iter_item_events(item: dict[str, Any], index: int) -> Iterator[dict[str, Any]]:
    place = {"item_id": item.get("id", ""), "output_index": index}
    empty = {name: [] if isinstance(value, list) else value for name, value in item.items()}
    empty |= {"status": "in_progress"} if "status" in item else {}
    empty |= {"arguments": ""} if isinstance(item.get("arguments"), str) else {}
    yield {"type": "response.output_item.added", "output_index": index, "item": empty}
    yield from iter_argument_events(item, place)
    yield from iter_summary_events(item, place)
    content = item.get("content") if item.get("type") == "message" else None
    for content_index, part in enumerate(content if isinstance(content, list) else ()):
        if isinstance(part, dict):
            yield from iter_part_events(part, {**place, "content_index": content_index})
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def iter_part_events(part: dict[str, Any], place: dict[str, Any]) -> Iterator[dict[str, Any]]:
    member, kind = ("refusal", "refusal") if part.get("type") == "refusal" else ("text", "output_text")
    text = part.get(member)
    yield {"type": "response.content_part.added", **place, "part": {**part, member: ""}}
    if isinstance(text, str):
        logprobs = {"logprobs": part.get("logprobs") or []} if kind == "output_text" else {}
        yield {"type": f"response.{kind}.delta", **place, "delta": text, **logprobs}
        yield {"type": f"response.{kind}.done", **place, member: text, **logprobs}
    yield {"type": "response.content_part.done", **place, "part": part}


def iter_argument_events(item: dict[str, Any], place: dict[str, Any]) -> Iterator[dict[str, Any]]:
    arguments = item.get("arguments")
    if item.get("type") == "function_call" and isinstance(arguments, str):
        yield {"type": "response.function_call_arguments.delta", **place, "delta": arguments}
        yield {"type": "response.function_call_arguments.done", **place, "arguments": arguments}


def iter_summary_events(item: dict[str, Any], place: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The summary of a reasoning item."""
    summary = item.get("summary")
    for index, part in enumerate(summary if isinstance(summary, list) else ()):
        if isinstance(part, dict) and isinstance(text := part.get("text"), str):
            at = {**place, "summary_index": index}
            yield {"type": "response.reasoning_summary_part.added", **at, "part": {**part, "text": ""}}
            yield {"type": "response.reasoning_summary_text.delta", **at, "delta": text}
            yield {"type": "response.reasoning_summary_text.done", **at, "text": text}
            yield {"type": "response.reasoning_summary_part.done", **at, "part": part}
