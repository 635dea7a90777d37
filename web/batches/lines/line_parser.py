"""Parses a line of a batch's input: `{"custom_id", "method", "url", "body"}` (OpenAI API reference, "Batch")."""

import codecs
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.errors import ApiError
from shared.json_object import InvalidObject, iter_members, parse_object
from shared.protocol.large_body import MAX_PIECE_BYTES
from web.request.body import RequestBody, build_body, parse_json
from web.request.cooperative import run_in_slices
from web.request.large_json import OBJECT, LargeObject

JSON = "application/json"
FIELDS, BODY = ("custom_id", "method", "url"), "body"
MAX_CUSTOM_ID_LENGTH = 512
NUL = b"\0"


class InvalidLine(ValueError):
    """Raised for a line that a batch can't have."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param

    def describe(self, line: int | None = None) -> dict[str, Any]:
        """An error of a batch's object in OpenAI's API."""
        return {"code": self.code, "message": self.message, "param": self.param, "line": line}


@dataclass(frozen=True)
class ParsedLine:
    """A line that is a JSON object."""

    fields: Mapping[str, Any]
    #: The line itself, and the value of `body` if it was parsed.
    data: bytes = field(repr=False)
    body: Any = None
    #: What is known of a long line, whose `body` was not parsed.
    large: LargeObject | None = None

    @property
    def custom_id(self) -> str:
        return str(self.fields.get("custom_id", ""))

    def cut_body(self) -> bytes:
        """The bytes of `body`."""
        if self.large:
            span = self.large.spans[BODY]
            return self.data[span.start : span.end]
        text = self.data.decode()
        member = next(member for member in iter_members(text) if member.name == BODY)
        return text[member.value_start : member.end].encode()


def parse_line(data: bytes) -> ParsedLine:
    """Lets the event loop turn while it parses a long line. Raises InvalidLine."""
    try:
        if len(data) > MAX_PIECE_BYTES:
            large = LargeObject(data, FIELDS, (BODY,))
            run_in_slices(decode_pieces(data))
            run_in_slices(large.check())
            return ParsedLine(large.fields, data, large=large)
        data.decode()
        if NUL in data:
            raise InvalidObject("it would be taken for UTF-16")
        values = parse_object(data, (*FIELDS, BODY))
    except UnicodeDecodeError:
        raise InvalidLine("invalid_json_line", "This line is not valid UTF-8.") from None
    except InvalidObject:
        raise InvalidLine("invalid_json_line", "This line is not parseable as a valid JSON object.") from None
    return ParsedLine({name: values[name] for name in FIELDS if name in values}, data, values.get(BODY))


def decode_pieces(data: bytes) -> Iterator[None]:
    """Checks that it is UTF-8. Raises UnicodeDecodeError."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(data), MAX_PIECE_BYTES):
        decoder.decode(data[start : start + MAX_PIECE_BYTES], final=start + MAX_PIECE_BYTES >= len(data))
        yield


def check_line(line: ParsedLine, endpoint: str) -> RequestBody:
    """Checks everything but the model and other lines. Raises InvalidLine.

    The body is returned without a measure of its content: `read_request` has that.
    """
    custom_id = line.fields.get("custom_id")
    if custom_id is None:
        raise missing("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID_LENGTH:
        message = f"custom_id must be a string of 1 to {MAX_CUSTOM_ID_LENGTH} characters."
        raise InvalidLine("invalid_custom_id", message, "custom_id")
    if "method" not in line.fields:
        raise missing("method")
    if line.fields["method"] != "POST":
        raise InvalidLine("invalid_method", "The method must be POST.", "method")
    if "url" not in line.fields:
        raise missing("url")
    if line.fields["url"] != endpoint:
        message = "The URL provided for this request does not match the batch endpoint."
        raise InvalidLine("invalid_url", message, "url")
    body = check_body(line)
    if body.stream:
        raise InvalidLine("invalid_stream", "A request of a batch can't be streamed.", "body.stream")
    return body


def check_body(line: ParsedLine) -> RequestBody:
    is_there = BODY in line.large.spans if line.large else line.body is not None
    if not is_there:
        raise missing(BODY)
    is_object = line.data[line.large.spans[BODY].start] == OBJECT if line.large else isinstance(line.body, dict)
    if not is_object:
        raise InvalidLine("invalid_body", "body must be a JSON object.", BODY)
    try:
        return read_request(line) if line.large else build_body(b"", JSON, line.body)
    except ApiError as error:
        raise InvalidLine(error.code, error.message, f"{BODY}.{error.param}" if error.param else BODY) from None


def read_request(line: ParsedLine) -> RequestBody:
    """The request that the line asks for. Raises ApiError."""
    return parse_json(line.cut_body(), JSON, "")


def missing(name: str) -> InvalidLine:
    return InvalidLine("missing_required_parameter", f"Missing required parameter: '{name}'.", name)


def quote(text: str) -> bytes:
    """JSON of a text, in ASCII: it may have lone surrogates."""
    return json.dumps(text).encode()
