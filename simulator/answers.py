"""What the simulator answers: computed from the request's last message, so a mixed-up or cut answer is seen.

The translation is ROT13, which undoes itself. It knows OpenAI's shapes, no sockets and no accounts.
"""

import base64
import codecs
import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any

MODELS = ("sim-translate", "sim-translate-mini", "text-embedding-sim", "tts-sim", "whisper-sim")


def translate(text: str) -> str:
    """The toy translation: ROT13, which undoes itself."""
    return codecs.encode(text, "rot13")


def message_text(content: Any) -> str:
    """The text of a message's content, be it text or parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def last_message(request: dict[str, Any]) -> str:
    """The text of the last message."""
    messages = request.get("messages") or [{}]
    return message_text(messages[-1].get("content"))


def usage_of(question: str, answer: str) -> dict[str, int]:
    """A usage record: a token a word."""
    asked, said = len(question.split()), len(answer.split())
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def dump(value: Any) -> bytes:
    """JSON as an API sends it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def event(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + dump(value) + b"\n\n"


def pieces(text: str, count: int) -> list[str]:
    """The text in `count` parts of about equal length; some are empty when the text is shorter."""
    return [text[len(text) * i // count : len(text) * (i + 1) // count] for i in range(count)]


def chat(request: dict[str, Any], number: int) -> dict[str, Any]:
    """A chat completion."""
    question = last_message(request)
    answer = translate(question)
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request.get("model"),
        "choices": [{"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}],
        "usage": usage_of(question, answer),
    }


def chat_events(request: dict[str, Any], number: int, chunks: int) -> Iterator[bytes]:
    """The events of a streamed chat completion: `chunks` with text, the end, usage when asked for, `[DONE]`."""
    question = last_message(request)
    answer = translate(question)
    frame = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": request.get("model"),
    }
    for i, piece in enumerate(pieces(answer, chunks)):
        delta = {"role": "assistant", "content": piece} if i == 0 else {"content": piece}
        yield event({**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    last = event({**frame, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if (request.get("stream_options") or {}).get("include_usage"):
        last += event({**frame, "choices": [], "usage": usage_of(question, answer)})
    yield last + b"data: [DONE]\n\n"


def completion(request: dict[str, Any], number: int) -> dict[str, Any]:
    """A text completion."""
    question = message_text(request.get("prompt"))
    answer = translate(question)
    return {
        "id": f"cmpl-{number}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": request.get("model"),
        "choices": [{"index": 0, "text": answer, "finish_reason": "stop"}],
        "usage": usage_of(question, answer),
    }


def completion_events(request: dict[str, Any], number: int, chunks: int) -> Iterator[bytes]:
    """The events of a streamed text completion."""
    frame = {"id": f"cmpl-{number}", "object": "text_completion", "model": request.get("model")}
    for piece in pieces(translate(message_text(request.get("prompt"))), chunks):
        yield event({**frame, "choices": [{"index": 0, "text": piece, "finish_reason": None}]})
    yield event({**frame, "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}) + b"data: [DONE]\n\n"


def embeddings(request: dict[str, Any], number: int) -> dict[str, Any]:
    """Embeddings: eight numbers out of the input's hash."""
    asked = request.get("input") or ""
    inputs = asked if isinstance(asked, list) else [asked]
    data = [
        {
            "object": "embedding",
            "index": i,
            "embedding": [b / 255 for b in hashlib.sha256(str(one).encode()).digest()[:8]],
        }
        for i, one in enumerate(inputs)
    ]
    return {
        "object": "list",
        "model": request.get("model"),
        "data": data,
        "usage": {"prompt_tokens": len(inputs), "total_tokens": len(inputs)},
    }


def moderation(request: dict[str, Any], number: int) -> dict[str, Any]:
    """A moderation that finds nothing."""
    result = {"flagged": False, "categories": {}, "category_scores": {}}
    return {"id": f"modr-{number}", "model": request.get("model"), "results": [result]}


def image(request: dict[str, Any], number: int) -> dict[str, Any]:
    """An image: the prompt's translation as base64."""
    picture = base64.b64encode(translate(str(request.get("prompt", ""))).encode()).decode()
    return {"created": int(time.time()), "data": [{"b64_json": picture}]}


def response(request: dict[str, Any], number: int) -> dict[str, Any]:
    """An answer of the Responses API."""
    asked = request.get("input")
    question = asked if isinstance(asked, str) else message_text((asked or [{}])[-1].get("content"))
    content = [{"type": "output_text", "text": translate(question), "annotations": []}]
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "model": request.get("model"),
        "output": [
            {"id": f"msg_{number}", "type": "message", "role": "assistant", "status": "completed", "content": content}
        ],
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
    }


def response_events(request: dict[str, Any], number: int, chunks: int) -> Iterator[bytes]:
    """The events of a streamed answer of the Responses API; its stream has no `[DONE]`."""
    whole = response(request, number)
    text = whole["output"][0]["content"][0]["text"]
    for i, piece in enumerate(pieces(text, chunks)):
        body = {
            "type": "response.output_text.delta",
            "item_id": f"msg_{number}",
            "output_index": 0,
            "content_index": 0,
            "sequence_number": i,
            "delta": piece,
        }
        yield b"event: response.output_text.delta\n" + event(body)
    yield b"event: response.completed\n" + event(
        {"type": "response.completed", "sequence_number": chunks, "response": whole}
    )


def speech(request: dict[str, Any]) -> bytes:
    """A sound that is none: bytes of all values, with the translation at the end."""
    return bytes(range(256)) * 64 + translate(str(request.get("input", ""))).encode()


def transcript(body: bytes) -> dict[str, Any]:
    """A transcription: the hash of the whole multipart body as it arrived."""
    return {"text": hashlib.sha256(body).hexdigest()}


def models() -> dict[str, Any]:
    """The list of models."""
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "simulator"} for name in MODELS]
    return {"object": "list", "data": data}
