"""Builds the simulator's OpenAI response bodies. No I/O.

Each body is computed from the request's last message, so a client can detect a mixed-up or truncated response.
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
    """The toy translation: ROT13, which is its own inverse."""
    return codecs.encode(text, "rot13")


def extract_text(content: Any) -> str:
    """The text of a message's content, which is a string or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def extract_last_message(request: dict[str, Any]) -> str:
    messages = request.get("messages") or [{}]
    return extract_text(messages[-1].get("content"))


def count_usage(prompt: str, completion: str) -> dict[str, int]:
    """A usage record that counts one token per word."""
    prompt_tokens, completion_tokens = len(prompt.split()), len(completion.split())
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def encode_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def encode_event(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + encode_json(value) + b"\n\n"


def split_text(text: str, count: int) -> list[str]:
    """Splits the text into `count` pieces of about equal length; some are empty when the text is shorter."""
    return [text[len(text) * i // count : len(text) * (i + 1) // count] for i in range(count)]


def build_chat_completion(request: dict[str, Any], number: int) -> dict[str, Any]:
    prompt = extract_last_message(request)
    completion = translate(prompt)
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request.get("model"),
        "choices": [{"index": 0, "message": {"role": "assistant", "content": completion}, "finish_reason": "stop"}],
        "usage": count_usage(prompt, completion),
    }


def stream_chat_completion(request: dict[str, Any], number: int, chunks: int) -> Iterator[bytes]:
    """Yields `chunks` text events, then one item with the finish reason, the usage if requested, and `[DONE]`."""
    prompt = extract_last_message(request)
    completion = translate(prompt)
    frame = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": request.get("model"),
    }
    for i, piece in enumerate(split_text(completion, chunks)):
        delta = {"role": "assistant", "content": piece} if i == 0 else {"content": piece}
        yield encode_event({**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    last = encode_event({**frame, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if (request.get("stream_options") or {}).get("include_usage"):
        last += encode_event({**frame, "choices": [], "usage": count_usage(prompt, completion)})
    yield last + b"data: [DONE]\n\n"


def build_completion(request: dict[str, Any], number: int) -> dict[str, Any]:
    prompt = extract_text(request.get("prompt"))
    completion = translate(prompt)
    return {
        "id": f"cmpl-{number}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": request.get("model"),
        "choices": [{"index": 0, "text": completion, "finish_reason": "stop"}],
        "usage": count_usage(prompt, completion),
    }


def stream_completion(request: dict[str, Any], number: int, chunks: int) -> Iterator[bytes]:
    """Yields `chunks` text events, then one item with the finish reason and `[DONE]`."""
    frame = {"id": f"cmpl-{number}", "object": "text_completion", "model": request.get("model")}
    for piece in split_text(translate(extract_text(request.get("prompt"))), chunks):
        yield encode_event({**frame, "choices": [{"index": 0, "text": piece, "finish_reason": None}]})
    last = encode_event({**frame, "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})
    yield last + b"data: [DONE]\n\n"


def build_embeddings(request: dict[str, Any], number: int) -> dict[str, Any]:
    """Each embedding is eight numbers from the hash of its input."""
    field = request.get("input") or ""
    inputs = field if isinstance(field, list) else [field]
    data = [
        {
            "object": "embedding",
            "index": i,
            "embedding": [byte / 255 for byte in hashlib.sha256(str(text).encode()).digest()[:8]],
        }
        for i, text in enumerate(inputs)
    ]
    return {
        "object": "list",
        "model": request.get("model"),
        "data": data,
        "usage": {"prompt_tokens": len(inputs), "total_tokens": len(inputs)},
    }


def build_moderation(request: dict[str, Any], number: int) -> dict[str, Any]:
    """A moderation that flags nothing."""
    result = {"flagged": False, "categories": {}, "category_scores": {}}
    return {"id": f"modr-{number}", "model": request.get("model"), "results": [result]}


def build_image(request: dict[str, Any], number: int) -> dict[str, Any]:
    """The "image" is the translated prompt in base64."""
    image = base64.b64encode(translate(str(request.get("prompt", ""))).encode()).decode()
    return {"created": int(time.time()), "data": [{"b64_json": image}]}


def build_response(request: dict[str, Any], number: int) -> dict[str, Any]:
    """A response object of the Responses API."""
    field = request.get("input")
    prompt = field if isinstance(field, str) else extract_text((field or [{}])[-1].get("content"))
    content = [{"type": "output_text", "text": translate(prompt), "annotations": []}]
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


def stream_response(request: dict[str, Any], number: int, chunks: int) -> Iterator[bytes]:
    """Yields the events of a streamed response of the Responses API, which does not end with `[DONE]`."""
    response = build_response(request, number)
    text = response["output"][0]["content"][0]["text"]
    for i, piece in enumerate(split_text(text, chunks)):
        body = {
            "type": "response.output_text.delta",
            "item_id": f"msg_{number}",
            "output_index": 0,
            "content_index": 0,
            "sequence_number": i,
            "delta": piece,
        }
        yield b"event: response.output_text.delta\n" + encode_event(body)
    yield b"event: response.completed\n" + encode_event(
        {"type": "response.completed", "sequence_number": chunks, "response": response}
    )


def build_speech(request: dict[str, Any]) -> bytes:
    """Stands in for audio: every byte value, then the translated input."""
    return bytes(range(256)) * 64 + translate(str(request.get("input", ""))).encode()


def build_transcript(body: bytes) -> dict[str, Any]:
    """The "transcript" is the hash of the whole multipart body as it arrived."""
    return {"text": hashlib.sha256(body).hexdigest()}


def build_model_list() -> dict[str, Any]:
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "simulator"} for name in MODELS]
    return {"object": "list", "data": data}
