"""Parses the few fields of a request body that the front needs; the rest passes unchanged (I10)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flask import Request

from shared.errors import ApiError
from shared.json_object import InvalidObject, add_member, parse_object, replace_member
from shared.protocol.large_body import MAX_PIECE_BYTES, Edit, LargeBody, apply_edits
from web.request.body_memory import Reservation
from web.request.body_reader import read_whole
from web.request.capacity.pool_selection import model_not_found_error
from web.request.cooperative import run_in_slices
from web.request.large_json import LargeObject
from web.request.media import measure_form, measure_json
from web.request.multipart import InvalidForm, Part, add_text_field, is_form, parse_parts, read_text_fields

#: Upper bound of `n` when tokens are estimated.
MAX_CHOICES = 128
#: Characters of a model name.
MAX_MODEL_LENGTH = 256
#: Characters of `stream_options` as JSON: it is kept as long as the request waits.
MAX_STREAM_OPTIONS_LENGTH = 1024
TOKEN_LIMIT_FIELDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
#: What the front reads of a JSON body, and of a form.
FIELDS = ("model", "stream", "stream_options", "service_tier", "n", *TOKEN_LIMIT_FIELDS)
FORM_FIELDS = ("model", "stream", "service_tier")


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
    stream_options: dict[str, Any] | None = None
    #: Where the model is in a multipart form, None for JSON.
    model_part: Part | None = None
    #: What is known of a large JSON body, None for others; and the members that change in it, or in a form.
    large_object: LargeObject | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    #: Bytes of text, and the number of images, audio clips and files beside it.
    text_bytes: int = 0
    media: int = 0

    @property
    def lacks_usage(self) -> bool:
        """Whether this is a JSON request for a stream without usage."""
        options = self.stream_options
        return self.model_part is None and self.stream and not (options and options.get("include_usage"))

    @property
    def content(self) -> bytes | LargeBody:
        """What the upstream gets."""
        if self.large_object:
            return apply_edits(self.data, self.large_object.build_edits(self.changes))
        if self.model_part and "model" in self.changes:
            edit = Edit(self.model_part.start, self.model_part.end, self.changes["model"].encode())
            return apply_edits(self.data, [edit])
        return self.data if len(self.data) <= MAX_PIECE_BYTES else LargeBody(self.data)

    def with_model(self, name: str) -> "RequestBody":
        """Returns a copy with the model name replaced and no other byte changed."""
        return self if name == self.model else self._with_member("model", name)

    def with_usage(self) -> "RequestBody":
        """Returns a copy that requests usage in the stream (OpenAI API reference, `stream_options`)."""
        return self._with_member("stream_options", {**(self.stream_options or {}), "include_usage": True})

    def _with_member(self, name: str, value: Any) -> "RequestBody":
        """Returns a copy with this member, in place of one that is there."""
        if self.large_object or self.model_part:
            return replace(self, changes={**self.changes, name: value})
        is_absent = name == "stream_options" and self.stream_options is None
        return replace(self, data=(add_member if is_absent else replace_member)(self.data, name, value))


def read_body(request: Request, reservation: Reservation, path_model: str = "") -> RequestBody:
    """Reads and parses the body. Raises ApiError 400, 408 or 429, RequestEntityTooLarge (413).

    A model that the path names replaces that of the body, as at Azure's endpoints.
    """
    data = read_whole(request, reservation)
    content_type = request.content_type or "application/json"
    return (
        parse_form(data, content_type, path_model)
        if is_form(content_type)
        else parse_json(data, content_type, path_model)
    )


def parse_json(data: bytes, content_type: str, path_model: str) -> RequestBody:
    """Raises ApiError 400."""
    if len(data) > MAX_PIECE_BYTES and json.detect_encoding(data[:4]).startswith("utf-8"):
        return parse_large_json(data, content_type, path_model)
    fields = parse_json_fields(data)
    if path_model and fields.get("model") != path_model:
        change = replace_member if "model" in fields else add_member
        data = change(data, "model", path_model)
        fields["model"] = path_model
    text_bytes, media = measure_json(data, fields)
    return replace(build_body(data, content_type, fields), text_bytes=text_bytes, media=media)


def parse_large_json(data: bytes, content_type: str, path_model: str) -> RequestBody:
    """Lets the event loop turn meanwhile. Raises ApiError 400."""
    large = LargeObject(data, FIELDS)
    try:
        run_in_slices(large.check())
    except InvalidObject as error:
        raise ApiError(400, "invalid_json", str(error)) from None
    is_other = bool(path_model) and large.fields.get("model") != path_model
    changes = {"model": path_model} if is_other else {}
    body = build_body(data, content_type, {**large.fields, **changes})
    text_bytes = max(0, len(data) - large.media_bytes)
    return replace(body, large_object=large, changes=changes, text_bytes=text_bytes, media=large.media)


def parse_form(data: bytes, content_type: str, path_model: str) -> RequestBody:
    """Raises ApiError 400."""
    try:
        if path_model:
            data = name_form_model(data, content_type, path_model)
        parts = parse_parts(data, content_type)
        body = build_body(data, content_type, parse_form_fields(data, parts))
    except InvalidForm as error:
        raise ApiError(400, "invalid_form", f"the request body is not a valid form: {error}") from None
    text_bytes, media = measure_form(parts)
    model_part = next(part for part in parts if part.name == "model")
    return replace(body, model_part=model_part, text_bytes=text_bytes, media=media)


def name_form_model(data: bytes, content_type: str, model: str) -> bytes:
    """Returns the form with this model. Raises InvalidForm."""
    part = next((part for part in parse_parts(data, content_type) if part.name == "model"), None)
    if part:
        return data[: part.start] + model.encode() + data[part.end :]
    return add_text_field(data, content_type, "model", model)


def build_body(data: bytes, content_type: str, fields: dict[str, Any]) -> RequestBody:
    return RequestBody(
        data,
        content_type,
        read_model(fields),
        read_stream(fields),
        read_max_tokens(fields),
        read_choices(fields),
        fields.get("service_tier") == "flex",
        read_stream_options(fields),
    )


def parse_json_fields(body: bytes) -> dict[str, Any]:
    """Raises ApiError 400 when the body is not a JSON object, or has two members of a name that decides something."""
    try:
        return parse_object(body, FIELDS)
    except InvalidObject as error:
        raise ApiError(400, "invalid_json", str(error)) from None


def parse_form_fields(body: bytes, parts: list[Part]) -> dict[str, Any]:
    """Reads the text fields of a multipart body; `stream` becomes a boolean. Raises InvalidForm."""
    fields: dict[str, Any] = dict(read_text_fields(body, parts, FORM_FIELDS))
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
    if len(model) > MAX_MODEL_LENGTH:
        raise model_not_found_error(model)
    return model


def read_stream(fields: dict[str, Any]) -> bool:
    """Raises ApiError 400 when `stream` is not a boolean."""
    stream = fields.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise ApiError(400, "invalid_type", "stream must be a boolean", param="stream")
    return bool(stream)


def read_stream_options(fields: dict[str, Any]) -> dict[str, Any] | None:
    """Raises ApiError 400 when `stream_options` is not a small object."""
    options = fields.get("stream_options")
    if options is None:
        return None
    if not isinstance(options, dict) or not is_small(options):
        raise ApiError(400, "invalid_type", "stream_options must be a small object", param="stream_options")
    return options


def is_small(options: dict[str, Any]) -> bool:
    length = 0
    try:
        for piece in json.JSONEncoder().iterencode(options):
            length += len(piece)
            if length > MAX_STREAM_OPTIONS_LENGTH:
                return False
    except RecursionError:
        return False
    return True


def read_max_tokens(fields: dict[str, Any]) -> int | None:
    """Returns the smallest token limit given, None if there is none: upstreams differ in which of them they honour."""
    limits = [fields[name] for name in TOKEN_LIMIT_FIELDS if type(fields.get(name)) is int and fields[name] >= 0]
    return min(limits, default=None)


def read_choices(fields: dict[str, Any]) -> int:
    choices = fields.get("n")
    return min(choices, MAX_CHOICES) if type(choices) is int and choices > 0 else 1
