"""What a response of each endpoint looks like, and an error in its place. No I/O."""

from typing import Any

from shared.errors import FarmError
from shared.protocol.sse import Event
from shared.response.error_shapes import has_error_mark

#: Endpoints whose responses and chunks have `choices`.
CHAT_PATH, TEXT_PATH = "/chat/completions", "/completions"
COMPLETION_PATHS = (CHAT_PATH, TEXT_PATH)
RESPONSES_PATH = "/responses"
SPEECH_PATH = "/audio/speech"
#: Endpoints whose response may be text or bytes of any kind.
FREE_PATHS = (SPEECH_PATH, "/audio/transcriptions", "/audio/translations")
#: Members that a response of each endpoint has, and an error has not.
RESPONSE_MEMBERS = {
    RESPONSES_PATH: ("output", "output_text"),
    "/embeddings": ("data", "embeddings", "embedding"),
    "/moderations": ("results",),
    "/images/generations": ("data", "images"),
    "/images/edits": ("data", "images"),
    "/images/variations": ("data", "images"),
    "/audio/transcriptions": ("text", "segments"),
    "/audio/translations": ("text", "segments"),
    "/models": ("data", "models"),
}


class InvalidResponse(FarmError):
    """Raised when a 2xx is an error in disguise; `body` is the upstream's error, b'' if it sent none."""

    def __init__(self, reason: str, body: bytes = b"") -> None:
        super().__init__(reason)
        self.body = body


def describe_invalid(path: str, payload: Any) -> str:
    """Why a whole JSON body is no response of that endpoint, '' if it is one."""
    if path in COMPLETION_PATHS:
        if has_choices(payload):
            return "an error object" if is_failed_completion(payload) else ""
        return "an error object" if has_error_mark(payload) else "JSON without `choices`"
    if not isinstance(payload, dict | list):
        return "" if path in FREE_PATHS else "JSON that is no object"
    if isinstance(payload, dict) and not payload:
        return "an empty object"
    return "an error object" if has_error_mark(payload) and not is_response(path, payload) else ""


def is_response(path: str, payload: Any) -> bool:
    """Whether a JSON object that mentions an error is a response all the same."""
    if not isinstance(payload, dict):
        return False
    if path == RESPONSES_PATH and payload.get("object") == "response":
        return True
    names = ("id",) if path.startswith("/models/") else RESPONSE_MEMBERS.get(path, ())
    members = [payload[name] for name in names if payload.get(name) is not None]
    return any(members) if payload.get("error") else bool(members)


def is_response_event(path: str, event: Event, payload: Any) -> bool:
    """Whether an event is part of a response, rather than an error, a heartbeat or something about the stream."""
    if path in COMPLETION_PATHS:
        return has_choices(payload) and not is_failed_completion(payload)
    if path == RESPONSES_PATH:
        type_ = payload.get("type") if isinstance(payload, dict) else None
        name = type_ if isinstance(type_, str) else event.type.decode(errors="replace")
        return name.startswith("response.") and name != "response.failed"
    return not is_error_event(event, payload)


def is_error_event(event: Event, payload: Any) -> bool:
    if is_failed_response(payload) or is_failed_completion(payload) or event.type == b"error":
        return True
    return has_error_mark(payload) and not is_typed_event(payload)


def is_typed_event(payload: Any) -> bool:
    """Whether a payload is an event of OpenAI's streaming endpoints by its type, `image_generation.completed` or so."""
    type_ = payload.get("type") if isinstance(payload, dict) else None
    return isinstance(type_, str) and "." in type_ and not payload.get("error")


def has_choices(payload: Any) -> bool:
    return isinstance(payload, dict) and isinstance(payload.get("choices"), list)


def is_failed_completion(payload: Any) -> bool:
    """Whether a completion or a chunk has an error, and nothing that a model has written."""
    if not has_choices(payload):
        return False
    choices = [choice for choice in payload["choices"] if isinstance(choice, dict)]
    has_failed = payload.get("error") or any(choice.get("error") for choice in choices)
    return bool(has_failed) and not any(map(has_content, choices))


def has_content(choice: dict[str, Any]) -> bool:
    message = choice.get("message") or choice.get("delta")
    members = message.items() if isinstance(message, dict) else ()
    return bool(choice.get("text")) or any(value for name, value in members if name != "role")


def is_failed_response(payload: Any) -> bool:
    return isinstance(payload, dict) and payload.get("type") == "response.failed"
