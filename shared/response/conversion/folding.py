"""Folds a stream into the one object that a caller gets who asked for no stream (OpenAI API reference). No I/O."""

import json
from typing import Any

from shared.protocol.sse import Event, EventBuffer
from shared.response.conversion.merging import TextParts, join_texts, merge, merge_logprobs
from shared.response.endpoints import CHAT_PATH, RESPONSES_PATH, InvalidResponse, is_error_event, is_response_event
from shared.response.events import iter_payloads

#: Bytes of a stream that is folded: it has to be held as a whole.
MAX_FOLDED_BYTES = 16 * 1024 * 1024
#: Last events of a stream of the Responses API that has not failed.
RESPONSE_ENDS = ("response.completed", "response.incomplete", "response.done")


class StreamFolder:
    """Collects the events of one stream."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._folded = FoldedResponse() if path == RESPONSES_PATH else FoldedCompletion(is_chat=path == CHAT_PATH)
        self._events = EventBuffer()
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Raises InvalidResponse when the stream ends with an error, or is too long."""
        self._size += len(data)
        if self._size > MAX_FOLDED_BYTES:
            raise InvalidResponse("a stream, where none was asked for, that is too long for one object")
        self._fold(self._events.feed(data))

    def finish(self) -> bytes:
        """The object, as JSON. Raises InvalidResponse."""
        self._fold(self._events.flush())
        return json.dumps(self._folded.build(), ensure_ascii=False).encode(errors="replace")

    def _fold(self, events: bytes) -> None:
        for event, payload in iter_payloads(events):
            if not is_response_event(self._path, event, payload) and is_error_event(event, payload):
                raise InvalidResponse("an error object", event.data or b"")
            if isinstance(payload, dict):
                self._folded.add(event, payload)


class FoldedCompletion:
    """A chat or text completion, from its chunks."""

    def __init__(self, *, is_chat: bool) -> None:
        self._is_chat = is_chat
        self._members: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}

    def add(self, _: Event, chunk: dict[str, Any]) -> None:
        for name, value in chunk.items():
            if name != "choices" and value is not None and not (name == "usage" and not value):
                self._members[name] = value
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._add_choice(choice)

    def _add_choice(self, choice: dict[str, Any]) -> None:
        index = choice.get("index")
        folded = self._choices.setdefault(index if type(index) is int else 0, {"message": {}, "text": TextParts()})
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict):
            merge(folded["message"], delta)
        if isinstance(text := choice.get("text"), str):
            folded["text"].parts.append(text)
        if isinstance(logprobs := choice.get("logprobs"), dict):
            merge_logprobs(folded.setdefault("logprobs", {}), logprobs)
        rest = {
            name: value
            for name, value in choice.items()
            if name not in ("index", "delta", "message", "text", "logprobs")
        }
        folded.update({name: value for name, value in rest.items() if value is not None})

    def build(self) -> dict[str, Any]:
        object_name = "chat.completion" if self._is_chat else "text_completion"
        choices = [self._build_choice(index, self._choices[index]) for index in sorted(self._choices)]
        usage = {"usage": self._members.pop("usage")} if "usage" in self._members else {}
        return {**self._members, "object": object_name, "choices": choices, **usage}

    def _build_choice(self, index: int, folded: dict[str, Any]) -> dict[str, Any]:
        message, text = join_texts(folded.pop("message")), folded.pop("text").join()
        body = (
            {"message": build_message(message, text)}
            if self._is_chat
            else {"text": text or message.get("content") or ""}
        )
        defaults = {"logprobs": None, "finish_reason": "tool_calls" if message.get("tool_calls") else "stop"}
        return {"index": index, **body, **defaults, **folded}


def build_message(delta: dict[str, Any], text: str) -> dict[str, Any]:
    """A message, from the sum of its deltas; indexes only tell apart what a stream sends in pieces."""
    content = text or delta.get("content")
    tool_calls = [drop_index(call) for call in delta.get("tool_calls") or ()]
    message = {**delta, "role": delta.get("role") or "assistant", "content": content}
    if not tool_calls:
        message.pop("tool_calls", None)
        message["content"] = content or (None if delta.get("function_call") or delta.get("refusal") else "")
        return message
    return {**message, "content": content or None, "tool_calls": tool_calls}


def drop_index(call: Any) -> Any:
    return {name: value for name, value in call.items() if name != "index"} if isinstance(call, dict) else call


class FoldedResponse:
    """A response of the Responses API: its last event holds it, in some upstreams without the output."""

    def __init__(self) -> None:
        self._response: dict[str, Any] = {"object": "response"}
        self._items: dict[int, Any] = {}
        self._texts: dict[int, TextParts] = {}

    def add(self, event: Event, payload: dict[str, Any]) -> None:
        type_ = payload.get("type") or event.type.decode(errors="replace")
        if isinstance(response := payload.get("response"), dict):
            self._response.update(response)
        if type_ in RESPONSE_ENDS:
            status = "incomplete" if type_ == "response.incomplete" else "completed"
            if self._response.get("status") in (None, "in_progress", "queued"):
                self._response["status"] = status
        index = payload.get("output_index")
        index = index if type(index) is int else len(self._items)
        if type_ == "response.output_item.done" and isinstance(payload.get("item"), dict):
            self._items[index] = payload["item"]
        elif type_ == "response.output_text.delta" and isinstance(payload.get("delta"), str):
            self._texts.setdefault(index, TextParts()).parts.append(payload["delta"])

    def build(self) -> dict[str, Any]:
        if not self._response.get("output"):
            missing = {
                index: build_text_item(text.join()) for index, text in self._texts.items() if index not in self._items
            }
            items = {**missing, **self._items}
            self._response["output"] = [items[index] for index in sorted(items)]
        return self._response


def build_text_item(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"id": "msg_0", "type": "message", "role": "assistant", "status": "completed", "content": content}
