"""A strict, linear parser for multipart forms (RFC 7578, RFC 2046 section 5.1).

What the front reads must be what every upstream reads, else a caller could name one model to the farm and another to
the upstream. So whatever parsers are known to disagree on is refused: bare line feeds, preambles, folded headers,
quoted pairs in names, transfer encodings, parameters given twice.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

MEDIA_TYPE = "multipart/form-data"
#: Parts in a form, and bytes in the headers of one part.
MAX_PARTS = 256
MAX_HEADER_BYTES = 8192
#: Longest text field that the front reads.
MAX_FIELD_BYTES = 1024
CRLF = b"\r\n"
#: One parameter of a header: a token or a quoted string (RFC 9110 section 5.6.6).
PARAMETER = re.compile(r"[ \t]*;[ \t]*([^\s=;\"]+)=(\"(?:[^\"\\]|\\.)*\"|[^\s;\"]*)[ \t]*")
#: A boundary (RFC 2046 section 5.1.1).
BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
#: Control characters, except tabs: a bare line feed or carriage return among them.
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
#: Names in the encoding of RFC 8187, which RFC 7578 forbids and some parsers decode.
ENCODED_NAMES = ("name*", "boundary*")
#: Transfer encodings that leave a part as it is.
IDENTITY_ENCODINGS = ("7bit", "8bit", "binary")


class InvalidForm(ValueError):
    """Raised for a form that parsers could read in different ways."""


@dataclass(frozen=True)
class Part:
    """One part of a form; its content is `body[start:end]`."""

    name: str
    start: int
    end: int
    is_text: bool


def is_form(content_type: str) -> bool:
    """Whether the media type is multipart/form-data; types are case-insensitive (RFC 9110 section 8.3.1)."""
    return content_type.partition(";")[0].strip().lower() == MEDIA_TYPE


def parse_parts(body: bytes, content_type: str) -> list[Part]:
    """Finds the parts of a form in one pass. Raises InvalidForm."""
    return [parse_part(body, start, end) for start, end in split_parts(body, parse_delimiter(content_type))]


def parse_delimiter(content_type: str) -> bytes:
    """The line before each part. Raises InvalidForm."""
    boundary = parse_parameters(content_type).get("boundary", "")
    if not BOUNDARY.fullmatch(boundary):
        raise InvalidForm("no valid boundary")
    return b"--" + boundary.encode()


def add_text_field(body: bytes, content_type: str, name: str, value: str) -> bytes:
    """Adds a field at the start of a form. Raises InvalidForm if the value would be read as more than that."""
    delimiter = parse_delimiter(content_type)
    content = value.encode()
    if delimiter in content:
        raise InvalidForm(f"{name} holds the boundary")
    head = b'Content-Disposition: form-data; name="%s"' % name.encode()
    return CRLF.join((delimiter, head, b"", content, body))


def split_parts(body: bytes, delimiter: bytes) -> Iterator[tuple[int, int]]:
    """Yields where the headers of each part begin and where its content ends."""
    if not body.startswith(delimiter):
        raise InvalidForm("no delimiter at the start")
    position = len(delimiter)
    for _ in range(MAX_PARTS):
        if body.startswith(b"--", position):
            if body[position + 2 :] not in (b"", CRLF):
                raise InvalidForm("data after the last delimiter")
            return
        end = body.find(delimiter, position)
        if end < 0 or body[position : position + 2] != CRLF or body[end - 2 : end] != CRLF:
            raise InvalidForm("a delimiter is not on a line of its own")
        yield position + 2, end - 2
        position = end + len(delimiter)
    raise InvalidForm("too many parts")


def parse_part(body: bytes, start: int, end: int) -> Part:
    head_end = body.find(CRLF + CRLF, start, min(end, start + MAX_HEADER_BYTES))
    if head_end < 0:
        raise InvalidForm("a part without headers, or with too many")
    headers = parse_headers(body[start:head_end])
    disposition = headers.get("content-disposition", "")
    fields = parse_parameters(disposition)
    name = fields.get("name", "")
    if disposition.partition(";")[0].strip().lower() != "form-data" or not name or "\\" in name:
        raise InvalidForm("a part without a name")
    if headers.get("content-transfer-encoding", "binary").strip().lower() not in IDENTITY_ENCODINGS:
        raise InvalidForm("a transfer encoding")
    is_text = not any(parameter.startswith("filename") for parameter in fields) and is_plain(headers)
    return Part(name, head_end + 4, end, is_text)


def is_plain(headers: dict[str, str]) -> bool:
    """Whether a part's content is text in UTF-8."""
    charset = parse_parameters(headers.get("content-type", "")).get("charset", "utf-8")
    return charset.lower() in ("utf-8", "us-ascii")


def parse_headers(data: bytes) -> dict[str, str]:
    """Parses the header lines of a part; names in lower case."""
    headers: dict[str, str] = {}
    for line in data.split(CRLF):
        name, colon, value = line.decode("utf-8", "replace").partition(":")
        if not colon or not name or name != name.strip() or CONTROL.search(value):
            raise InvalidForm("an invalid header line")
        if name.lower() in headers:
            raise InvalidForm("a header given twice")
        headers[name.lower()] = value
    return headers


def parse_parameters(value: str) -> dict[str, str]:
    """Parses the parameters after the first `;` of a header's value; names in lower case. Raises InvalidForm."""
    parameters: dict[str, str] = {}
    position = value.find(";")
    while 0 <= position < len(value):
        match = PARAMETER.match(value, position)
        if not match:
            raise InvalidForm("an invalid parameter")
        name, position = match[1].lower(), match.end()
        if name in parameters or name in ENCODED_NAMES or re.search(r"\*\d", name):
            raise InvalidForm("a parameter given twice, or encoded")
        parameters[name] = match[2][1:-1] if match[2].startswith('"') else match[2]
    return parameters


def read_text_fields(body: bytes, parts: list[Part], names: tuple[str, ...]) -> dict[str, str]:
    """Returns the text fields of these names. Raises InvalidForm if one is a file, too long, or given twice."""
    fields: dict[str, str] = {}
    for part in parts:
        if part.name not in names:
            continue
        if part.name in fields or not part.is_text or part.end - part.start > MAX_FIELD_BYTES:
            raise InvalidForm(f"{part.name} is a file, too long, or given twice")
        try:
            fields[part.name] = body[part.start : part.end].decode()
        except UnicodeDecodeError:
            raise InvalidForm(f"{part.name} is not UTF-8") from None
    return fields
