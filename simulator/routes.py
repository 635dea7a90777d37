"""Which path is answered by what, and the 200s that are no answers; tables only."""

from collections.abc import Callable, Iterator
from typing import Any

from simulator import answers

JSON_ANSWERS: dict[str, Callable[[dict[str, Any], int], dict[str, Any]]] = {
    "/v1/chat/completions": answers.chat,
    "/v1/completions": answers.completion,
    "/v1/embeddings": answers.embeddings,
    "/v1/moderations": answers.moderation,
    "/v1/images/generations": answers.image,
    "/v1/responses": answers.response,
}
STREAMED_ANSWERS: dict[str, Callable[[dict[str, Any], int, int], Iterator[bytes]]] = {
    "/v1/chat/completions": answers.chat_events,
    "/v1/completions": answers.completion_events,
    "/v1/responses": answers.response_events,
}
#: Fault -> a 200 that is no answer: its body and content type.
NO_ANSWERS: dict[str, tuple[bytes, str]] = {
    "error_object": (
        b'{"error": {"message": "the simulator was told to fail", "type": "server_error"}}',
        "application/json",
    ),
    "empty_stream": (b": nothing\n\ndata: [DONE]\n\n", "text/event-stream"),
    "page": (b"<!doctype html><title>Be right back</title>", "text/html; charset=utf-8"),
}
MULTIPART = ("/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits", "/v1/images/variations")
