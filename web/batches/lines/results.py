"""Renders the results of lines as they stand in a batch's output and error files. No I/O."""

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.errors import ApiError
from shared.json_object import InvalidObject
from shared.parsing import parse_json, parse_json_object
from shared.protocol.large_body import MAX_PIECE_BYTES
from web.batches.lines.line_parser import decode_pieces, quote
from web.request.cooperative import run_in_slices
from web.request.large_json import BYTE_ORDER_MARK, LargeObject

#: Letters of the files to which results belong.
OUTPUT, ERRORS = b"o", b"e"
MAX_TOKENS = 10**9
#: A NaN or infinity, or what looks like one within a string.
NOT_FINITE = re.compile(rb"[\[:,]\s*+-?(?:NaN|Infinity)\s*+[\],}]")


@dataclass(frozen=True)
class LineReply:
    """How the farm, or the upstream, replied to a line."""

    status: int
    request_id: str
    body: bytes = field(repr=False)
    #: Code of the farm's error, '' for a reply of the upstream; seconds until a retry, 0 if unknown.
    code: str = ""
    retry_after: float = 0.0
    #: Whether it is the reply to another request, so that it used no tokens.
    is_shared: bool = False

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def reason(self) -> str:
        """Why it is an error, in a bounded number of words: upstreams have any codes."""
        return self.code or f"http_{self.status}"


def build_error_reply(error: ApiError, request_id: str, retry_after: float) -> LineReply:
    return LineReply(error.status, request_id, error.body(), error.code, retry_after)


def render_reply(custom_id: str, reply: LineReply) -> bytes:
    """The line of a reply, behind the letter of its file."""
    response = b'{"status_code": %d, "request_id": %b, "body": %b}' % (
        reply.status,
        quote(reply.request_id),
        fit_into_line(reply.body),
    )
    line = b'{"id": %b, "custom_id": %b, "response": %b, "error": null}\n'
    return (OUTPUT if reply.is_success else ERRORS) + line % (quote(new_line_id()), quote(custom_id), response)


def render_skipped(custom_id: str, code: str, message: str) -> bytes:
    """The line of a request that is skipped, behind the letter of its file."""
    error = {"code": code, "message": message}
    values = {"id": new_line_id(), "custom_id": custom_id, "response": None, "error": error}
    return ERRORS + json.dumps(values).encode() + b"\n"


def fit_into_line(body: bytes) -> bytes:
    """JSON without line breaks, which it has between values only; as a string what is no JSON."""
    if not is_json(body):
        return quote(body.decode(errors="replace"))
    if not is_portable(body):
        return rewrite(body)
    return body.strip().replace(b"\n", b" ").replace(b"\r", b" ")


def is_json(body: bytes) -> bool:
    """Lets the event loop turn meanwhile if it is long; long JSON has to be an object."""
    if len(body) <= MAX_PIECE_BYTES:
        return parse_json(body) is not None or body.strip() == b"null"
    try:
        run_in_slices(LargeObject(body, ()).check())
    except InvalidObject:
        return False
    return True


def is_portable(body: bytes) -> bool:
    """Whether JSON may stand within a file that any parser reads: Python's takes other encodings and numbers too."""
    try:
        run_in_slices(decode_pieces(body))
    except UnicodeDecodeError:
        return False
    return not (body.startswith(BYTE_ORDER_MARK) or b"\0" in body or NOT_FINITE.search(body))


def rewrite(body: bytes) -> bytes:
    """The same JSON in ASCII, with null for what is no number; all of it at once, as it is seldom needed."""
    try:
        return json.dumps(json.loads(body, parse_constant=lambda _: None), allow_nan=False).encode()
    except (ValueError, RecursionError):
        return quote(body.decode(errors="replace"))


def read_usage(body: bytes) -> dict[str, int]:
    """The tokens that a response reports, as fields of the batch's record."""
    usage = find_usage(body)
    prompt, completion = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    inputs, outputs = usage.get("input_tokens_details", prompt), usage.get("output_tokens_details", completion)
    found = {
        "input_tokens": read_tokens(usage, "input_tokens") or read_tokens(usage, "prompt_tokens"),
        "cached_tokens": read_tokens(inputs, "cached_tokens"),
        "output_tokens": read_tokens(usage, "output_tokens") or read_tokens(usage, "completion_tokens"),
        "reasoning_tokens": read_tokens(outputs, "reasoning_tokens"),
    }
    return {name: tokens for name, tokens in found.items() if tokens}


def find_usage(body: bytes) -> Mapping[str, Any]:
    if len(body) <= MAX_PIECE_BYTES:
        usage = parse_json_object(body).get("usage")
    else:
        large = LargeObject(body, ("usage",))
        try:
            run_in_slices(large.check())
        except InvalidObject:
            return {}
        usage = large.fields.get("usage")
    return usage if isinstance(usage, dict) else {}


def read_tokens(values: Any, name: str) -> int:
    tokens = values.get(name) if isinstance(values, dict) else None
    return tokens if type(tokens) is int and 0 <= tokens <= MAX_TOKENS else 0


def new_line_id() -> str:
    return f"batch_req_{secrets.token_hex(12)}"
