"""Reads the Idempotency-Key header (draft-ietf-httpapi-idempotency-key-header)."""

import re

from shared.errors import ApiError

#: The header, in a WSGI environment.
IDEMPOTENCY_HEADER = "HTTP_IDEMPOTENCY_KEY"
#: Characters of a key.
MAX_KEY_LENGTH = 1024
#: A string (RFC 8941 section 3.3.3), perhaps with parameters, which mean nothing.
QUOTED_KEY = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"[ \t]*(?:;[\x20-\x7e]*)?')
#: What most clients send: a UUID or so, without quotes.
BARE_KEY = re.compile(r"[\x21\x23-\x7e][\x21-\x7e]*")
ESCAPED = re.compile(r"\\(.)")
KEY_REUSED = ApiError(
    422,
    "idempotency_key_reused",
    "this Idempotency-Key was used for another request: use a new key for each request",
)


def parse_key(header: str) -> str:
    """The key, '' without one, or where it is not printable ASCII: such headers are not passed on either.

    Raises ApiError 400.
    """
    header = header.strip(" \t")
    if not (header and header.isascii() and header.isprintable()):
        return ""
    quoted = QUOTED_KEY.fullmatch(header)
    key = ESCAPED.sub(r"\1", quoted[1]) if quoted else header if BARE_KEY.fullmatch(header) else ""
    if not key or len(key) > MAX_KEY_LENGTH:
        message = f"Idempotency-Key must be a string of 1 to {MAX_KEY_LENGTH} ASCII characters"
        raise ApiError(400, "invalid_idempotency_key", message)
    return key
