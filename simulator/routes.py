"""Tables of the API's paths, their response builders, and the bodies of faults with status 200."""

from collections.abc import Callable, Iterator
from typing import Any

from simulator import responses

RESPONSE_BUILDERS: dict[str, Callable[[dict[str, Any], int], dict[str, Any]]] = {
    "/v1/chat/completions": responses.build_chat_completion,
    "/v1/completions": responses.build_completion,
    "/v1/embeddings": responses.build_embeddings,
    "/v1/moderations": responses.build_moderation,
    "/v1/images/generations": responses.build_image,
    "/v1/responses": responses.build_response,
}
STREAM_BUILDERS: dict[str, Callable[[dict[str, Any], int, int], Iterator[bytes]]] = {
    "/v1/chat/completions": responses.stream_chat_completion,
    "/v1/completions": responses.stream_completion,
    "/v1/responses": responses.stream_response,
}
#: Fault -> body and content type of its status 200 response.
FAULT_BODIES: dict[str, tuple[bytes, str]] = {
    "error_object": (
        b'{"error": {"message": "the simulator was told to fail", "type": "server_error"}}',
        "application/json",
    ),
    "empty_stream": (b": nothing\n\ndata: [DONE]\n\n", "text/event-stream"),
    "page": (b"<!doctype html><title>Be right back</title>", "text/html; charset=utf-8"),
}
MULTIPART_PATHS = ("/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits", "/v1/images/variations")
