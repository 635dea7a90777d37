"""Reads errors of upstreams, whatever their shape, and writes them in OpenAI's. No I/O.

Shapes that are read, beside OpenAI's `{"error": {"message", "type", "param", "code"}}` (API reference, "Error codes"):
problem details (RFC 9457), OAuth's `error_description` (RFC 6749 section 5.2), FastAPI's and Django's `detail`, vLLM's
and Anthropic's `"object"`/`"type": "error"`, gRPC gateways' `[{"error": {"status": "RESOURCE_EXHAUSTED"}}]`, the
`code`/`msg`, `errcode`/`errmsg` and `base_resp` of many others; an error as a server-sent event, a page, or plain text.
"""

import html
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from shared.errors import build_error_body
from shared.parsing import parse_json
from shared.protocol.sse import BYTE_ORDER_MARK
from shared.response.events import iter_payloads

#: Characters of a message that are kept; and of a page's title.
MAX_MESSAGE_LENGTH, MAX_TITLE_LENGTH = 4000, 200
#: Type and code of an error that the upstream has given none.
UNNAMED_ERROR = "upstream_error"
#: How deep an error may lie within others.
MAX_DEPTH = 4
#: Members that hold an error, from the outermost in.
ERROR_MEMBERS = ("error", "errors", "Error", "detail", "base_resp", "fault", "Response", "response", "ResponseMetadata")
MESSAGE_MEMBERS = (
    "message", "msg", "detail", "error_description", "error_message", "error_msg", "errmsg", "errMsg", "errorMessage",
    "Message", "status_msg", "faultstring", "description", "reason", "title", "info",
)  # fmt: skip
CODE_MEMBERS = ("code", "error_code", "errorCode", "errcode", "Code", "status_code", "statusCode", "status")
#: Those of them that say with a text beside them that a call has failed; and the members of such texts.
FAILURE_CODES = tuple(name for name in CODE_MEMBERS if name != "status")
FAILURE_TEXTS = ("message", "msg", "error_message", "error_msg", "errmsg", "errMsg", "errorMessage", "Message")
#: Values of a code that say that all is well.
NO_FAILURE = (None, "", 0, "0", 200, "200", "ok", "OK", "success")
STATUS_MEMBERS = ("status", "status_code", "statusCode", "http_status", "http_code", "httpStatus")
#: Values of `status`, `object` and `type` that say that a response is an error.
ERROR_MARKS = frozenset({"error", "fail", "failed", "failure"})
#: Statuses of error names: OpenAI's types and codes, Anthropic's types, and gRPC's canonical codes. Only those below
#: 500: without one, an error with status 200 counts as 502.
STATUSES = {
    "authentication_error": 401,
    "invalid_api_key": 401,
    "unauthenticated": 401,
    "unauthorized": 401,
    "billing_error": 402,
    "payment_required": 402,
    "permission_error": 403,
    "permission_denied": 403,
    "forbidden": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "too_many_requests": 429,
    "resource_exhausted": 429,
    "insufficient_quota": 429,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "invalid_argument": 400,
    "invalid_request_error": 400,
}
#: Error codes that say that an account can pay for nothing, whatever the status.
UNPAID_CODES = frozenset(
    {
        "insufficient_quota",
        "insufficient_user_quota",
        "insufficient_balance",
        "insufficient_credits",
        "credits_exhausted",
        "quota_exceeded",
        "usage_limit_reached",
        "insufficient_funds",
        "exceeded_current_quota_error",
        "billing_error",
        "billing_not_active",
        "billing_hard_limit_reached",
        "payment_required",
        "arrearage",
        "accountoverdueerror",
    }
)
TITLE = re.compile(rb"<(title|h1)[^>]*>(.*?)</\1", re.IGNORECASE | re.DOTALL)
TAG = re.compile(r"<[^>]*>")
PAGE_START = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|!--|\?xml|html|head|body|center|h1|title)", re.IGNORECASE
)
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffd]+")


@dataclass(frozen=True)
class UpstreamError:
    """An error as the upstream described it."""

    message: str = ""
    type: str = ""
    param: str | None = None
    #: Its name or number, '' for none.
    code: str = ""
    #: The HTTP status that the body gives, 0 if it gives none.
    status: int = 0

    @property
    def is_unpaid(self) -> bool:
        """Whether the account is out of credit, by the error's code (never by its text)."""
        return bool({self.code.lower(), self.type.lower()} & UNPAID_CODES)


def is_page(body: bytes) -> bool:
    """Whether the body is an HTML or XML page."""
    return bool(PAGE_START.match(body))


def read_error(body: bytes) -> UpstreamError:
    """The error that an error response's body describes, as far as it can be read."""
    payload = parse_json(body.removeprefix(BYTE_ORDER_MARK))
    if payload is None:
        payload = find_event_payload(body)
    if payload is not None:
        return describe_error(payload)
    if is_page(body):
        return UpstreamError(find_title(body))
    return UpstreamError(clean_message(body.decode(errors="replace")) if is_text(body) else "")


def is_text(body: bytes) -> bool:
    text = body.decode(errors="replace")
    return b"\0" not in body and text.count("\ufffd") * 20 <= len(text)


def find_event_payload(body: bytes) -> Any:
    """The JSON value of the first server-sent event that has one, else None."""
    return next((payload for _, payload in iter_payloads(body)), None)


def find_title(page: bytes) -> str:
    """The title of a page, '' without one."""
    match = TITLE.search(page)
    if not match:
        return ""
    text = html.unescape(TAG.sub(" ", match.group(2).decode(errors="replace")))
    return clean_message(text)[:MAX_TITLE_LENGTH]


def clean_message(text: str) -> str:
    """The text without control characters, and not too long."""
    return " ".join(CONTROL_CHARACTERS.sub(" ", text[: 2 * MAX_MESSAGE_LENGTH]).split())[:MAX_MESSAGE_LENGTH]


def describe_error(payload: Any) -> UpstreamError:
    """The error in a JSON value; empty when it describes none."""
    layers = list(reversed(list(iter_layers(payload, MAX_DEPTH))))
    texts = [layer for layer in layers if isinstance(layer, str)]
    objects = [layer for layer in layers if isinstance(layer, dict)]
    message = find_first(find_message, objects) or next(iter(texts), "")
    code = find_first(find_code, objects)
    if not code and len(texts) == 1 and texts[0] != message and " " not in texts[0]:
        code = texts[0]
    type_ = find_first(find_type, objects)
    status = find_first(find_status, objects) or find_named_status(code, type_)
    param = find_first(lambda layer: layer.get("param"), objects)
    param = param if isinstance(param, str) and param else None
    return UpstreamError(clean_message(message), type_, param, clean_message(code)[:100], status or 0)


def find_first(find: Callable[[dict[str, Any]], Any], objects: list[dict[str, Any]]) -> Any:
    """The first value that is found, else ''."""
    return next(filter(None, map(find, objects)), "")


def iter_layers(payload: Any, depth: int) -> Iterator[Any]:
    """Yields the objects and texts in which an error is described, from the outermost in."""
    if isinstance(payload, list):
        parts = payload[:5]
        if parts and all(isinstance(part, dict) and "msg" in part for part in parts):
            yield "; ".join(map(describe_validation, parts))
        elif parts:
            yield from iter_layers(parts[0], depth)
    elif isinstance(payload, dict):
        yield payload
        inner = next((member for name in ERROR_MEMBERS if is_inner(member := payload.get(name))), None)
        if depth and inner:
            yield from iter_layers(inner, depth - 1)
    elif isinstance(payload, str) and payload.strip():
        yield payload


def is_inner(member: object) -> bool:
    return isinstance(member, dict | list | str) and bool(member)


def describe_validation(part: dict[str, Any]) -> str:
    """One line of FastAPI's `detail`: where, and what."""
    location = part.get("loc")
    where = ".".join(map(str, location)) if isinstance(location, list) else ""
    return f"{where}: {part['msg']}" if where else str(part["msg"])


def find_message(layer: dict[str, Any]) -> str:
    return next((text for name in MESSAGE_MEMBERS if isinstance(text := layer.get(name), str) and text.strip()), "")


def find_code(layer: dict[str, Any]) -> str:
    """The error's name or number in one layer; '' for none, and for marks that say no more than that it is one."""
    for name in CODE_MEMBERS:
        code = layer.get(name)
        if isinstance(code, str) and code.strip() and code.lower() not in ERROR_MARKS:
            return code.strip()
        if type(code) is int and code not in (0, 200):
            return str(code)
    return ""


def find_status(layer: dict[str, Any]) -> int:
    """The HTTP status of an error that one layer gives; a text may be a number, too."""
    for name in (*STATUS_MEMBERS, *CODE_MEMBERS):
        if status := parse_status(layer.get(name)):
            return status
    return 0


def parse_status(value: object) -> int:
    """A number or numeric text as a status from 400 to 599, else 0."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value.strip()) == 3:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 400 <= value < 600 else 0


def find_named_status(*error_names: str) -> int:
    return next((STATUSES[name.lower()] for name in error_names if name.lower() in STATUSES), 0)


def find_type(layer: dict[str, Any]) -> str:
    """The error's type; '' if it says only that it is an error, or is a URL (problem details), or an event's type."""
    type_ = layer.get("type")
    is_name = isinstance(type_, str) and type_.lower() not in ERROR_MARKS and re.fullmatch(r"[\w-]{1,100}", type_)
    return str(type_) if is_name else ""


def has_error_mark(payload: Any) -> bool:
    """Whether a JSON value says of itself that it is an error."""
    if isinstance(payload, list):
        return bool(payload) and isinstance(payload[0], dict) and has_error_mark(payload[0])
    if not isinstance(payload, dict):
        return False
    marks = (payload.get(name) for name in ("object", "type", "status", "event"))
    if any(isinstance(mark, str) and mark.lower() in ERROR_MARKS for mark in marks):
        return True
    if any(payload.get(name) for name in ("error", "errors", "Error", "detail", "fault", "errmsg", "error_msg")):
        return True
    return payload.get("success") is False or payload.get("ok") is False or has_failure_code(payload)


def has_failure_code(payload: dict[str, Any]) -> bool:
    """Whether a `code` with a text beside it, or the like, says that a call has failed."""
    base = payload.get("base_resp")
    if isinstance(base, dict) and base.get("status_code"):
        return True
    has_code = any(is_failure_code(payload.get(name)) for name in FAILURE_CODES)
    return has_code and any(isinstance(payload.get(name), str) for name in FAILURE_TEXTS)


def is_failure_code(code: object) -> bool:
    return isinstance(code, int | str) and not isinstance(code, bool) and code not in NO_FAILURE


def to_openai_error(status: int, body: bytes) -> bytes:
    """The upstream's error body as it came if it has OpenAI's shape, else one in that shape, with its message."""
    data = body.removeprefix(BYTE_ORDER_MARK).strip()
    payload = parse_json(data)
    error = payload.get("error") if isinstance(payload, dict) else None
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return data
    described = read_error(body)
    message = described.message or (clean_message(json.dumps(payload))[:MAX_TITLE_LENGTH] if payload else "")
    return build_error_body(
        message or f"the upstream returned {status}",
        described.type or UNNAMED_ERROR,
        described.code or UNNAMED_ERROR,
        described.param,
    )
