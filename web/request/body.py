"""Parses the few fields of a request body that the front needs; the rest passes unchanged (I10)."""

import json
import re
from dataclasses import dataclass, replace
from typing import Any

from flask import Request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import BadRequest, ClientDisconnected, RequestEntityTooLarge

from shared.errors import ApiError

MULTIPART = "multipart/form-data"
#: Upper bound of `n` when tokens are estimated.
MAX_CHOICES = 128
CLOSE_HEADERS = {"connection": "close"}
#: Separators in a JSON object (RFC 8259 section 2).
WHITESPACE = re.compile(r"[ \t\n\r]*")
COLON = re.compile(r"[ \t\n\r]*:[ \t\n\r]*")
COMMA = re.compile(r"[ \t\n\r]*,?[ \t\n\r]*")


@dataclass(frozen=True)
class RequestBody:
    """A request body and its parsed fields."""

    data: bytes
    content_type: str
    model: str
    stream: bool
    #: Maximum number of tokens per choice, None if not given; and the number of choices.
    max_tokens: int | None = None
    choices: int = 1
    #: Whether the request has `"service_tier": "flex"` (OpenAI API reference, "Flex processing").
    is_flexible: bool = False
    #: `stream_options` as received, None if absent.
    stream_options: Any = None

    @property
    def lacks_usage(self) -> bool:
        """Whether this is a JSON request for a stream without usage."""
        options = self.stream_options
        is_json = not self.content_type.startswith(MULTIPART)
        return (
            is_json
            and self.stream
            and (options is None or (isinstance(options, dict) and not options.get("include_usage")))
        )

    def with_model(self, name: str) -> "RequestBody":
        """Returns a copy with the model name replaced and no other byte changed."""
        if name == self.model:
            return self
        if self.content_type.startswith(MULTIPART):
            return replace(self, data=replace_field(self.data, "model", name))
        return replace(self, data=replace_member(self.data, "model", name))

    def with_usage(self) -> "RequestBody":
        """Returns a copy that requests usage in the stream (OpenAI API reference, `stream_options`)."""
        options = {**(self.stream_options or {}), "include_usage": True}
        if self.stream_options is None:
            return replace(self, data=add_member(self.data, "stream_options", options))
        return replace(self, data=replace_member(self.data, "stream_options", options))


def read_body(request: Request) -> RequestBody:
    """Reads and parses the body. Raises ApiError 400 when it is invalid, RequestEntityTooLarge (413)."""
    body = read_whole(request)
    content_type = request.content_type or "application/json"
    fields = parse_form_fields(request) if content_type.startswith(MULTIPART) else parse_json_fields(body)
    return RequestBody(
        body,
        content_type,
        read_model(fields),
        read_stream(fields),
        read_max_tokens(fields),
        read_choices(fields),
        fields.get("service_tier") == "flex",
        fields.get("stream_options"),
    )


def read_whole(request: Request) -> bytes:
    """Reads the whole body. Raises ApiError 400, RequestEntityTooLarge.

    Flask would accept a truncated body, and would cut a chunked one at the limit without an error.
    """
    try:
        body = request.get_data(cache=True)
    except ClientDisconnected:
        body = b""
    except ParseException:
        raise ApiError(400, "invalid_body", "the body's chunked encoding is invalid", headers=CLOSE_HEADERS) from None
    if request.content_length is None:
        if len(body) == request.max_content_length and request.environ["wsgi.input"].read(1):
            raise RequestEntityTooLarge
    elif len(body) < request.content_length:
        raise ApiError(400, "incomplete_body", "the body is shorter than its Content-Length")
    return body


def parse_json_fields(body: bytes) -> dict[str, Any]:
    """Raises ApiError 400 when the body is not a JSON object."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise ApiError(400, "invalid_json", "the request body is not valid JSON") from None
    if not isinstance(fields, dict):
        raise ApiError(400, "invalid_json", "the request body must be a JSON object")
    return fields


def parse_form_fields(request: Request) -> dict[str, Any]:
    """Parses the text fields of a multipart body; `stream` becomes a boolean. Raises ApiError 400."""
    try:
        fields: dict[str, Any] = dict(request.form.items())
    except (BadRequest, ValueError):
        raise ApiError(400, "invalid_form", "the request body is not a valid form") from None
    if "stream" in fields:
        fields["stream"] = fields["stream"].lower() in ("true", "1")
    return fields


def read_model(fields: dict[str, Any]) -> str:
    """Raises ApiError 400 when the model is missing or not a string."""
    model = fields.get("model")
    if model is None or model == "":
        raise ApiError(400, "missing_required_parameter", "you must provide a model parameter", param="model")
    if not isinstance(model, str):
        raise ApiError(400, "invalid_type", "model must be a string", param="model")
    return model


def read_stream(fields: dict[str, Any]) -> bool:
    """Raises ApiError 400 when `stream` is not a boolean."""
    stream = fields.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise ApiError(400, "invalid_type", "stream must be a boolean", param="stream")
    return bool(stream)


def read_max_tokens(fields: dict[str, Any]) -> int | None:
    """Returns the smallest token limit given, None if there is none: upstreams differ in which of them they honour."""
    field_names = ("max_completion_tokens", "max_tokens", "max_output_tokens")
    limits = [fields[name] for name in field_names if type(fields.get(name)) is int and fields[name] >= 0]
    return min(limits, default=None)


def read_choices(fields: dict[str, Any]) -> int:
    choices = fields.get("n")
    return min(choices, MAX_CHOICES) if type(choices) is int and choices > 0 else 1


def add_member(body: bytes, name: str, value: Any) -> bytes:
    """Adds a top-level member to a JSON object, at its end or in place of a null; no other byte changes."""
    if json.detect_encoding(body) != "utf-8" or f'"{name}"'.encode() in body:
        body = replace_member(body, name, value)
        if name in json.loads(body):
            return body
    unclosed = body.decode(json.detect_encoding(body), "surrogatepass").rstrip().removesuffix("}")
    return f"{unclosed}, {json.dumps(name)}: {json.dumps(value)}}}".encode("utf-8", "surrogatepass")


def replace_member(body: bytes, name: str, value: Any) -> bytes:
    """Replaces the value of a top-level member of a JSON object; no other byte changes."""
    text = body.decode(json.detect_encoding(body), "surrogatepass")
    decoder = json.JSONDecoder()
    position = WHITESPACE.match(text, text.index("{") + 1).end()  # type: ignore[union-attr]
    parts, copied = [], 0
    while text[position] != "}":
        key, position = decoder.raw_decode(text, position)
        value_start = COLON.match(text, position).end()  # type: ignore[union-attr]
        _, position = decoder.raw_decode(text, value_start)
        if key == name:
            parts += [text[copied:value_start], json.dumps(value)]
            copied = position
        position = COMMA.match(text, position).end()  # type: ignore[union-attr]
    return "".join((*parts, text[copied:])).encode("utf-8", "surrogatepass")


def replace_field(body: bytes, name: str, value: str) -> bytes:
    """Replaces the value of a text field in a multipart body (RFC 7578)."""
    pattern = (
        rb'(?is)(\r\ncontent-disposition:[^\r\n]*;\s*name="?'
        + re.escape(name.encode())
        + rb'"?[ \t]*(?:;[^\r\n]*)?\r\n'
    )
    pattern += rb"(?:[^\r\n]+\r\n)*\r\n)(.*?)(?=\r\n--)"
    return re.sub(pattern, lambda match: match.group(1) + value.encode(), body, count=1)
