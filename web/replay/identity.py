"""Who a request is: requests with the same identity get the same answer.

The name of an answer in Redis, and the key that seals it, are derived from the request itself (HKDF, RFC 5869). So
Redis shows neither requests nor answers: whoever wants to read one must know the whole request.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.protocol.large_body import MAX_PIECE_BYTES
from web.request.body import RequestBody
from web.request.cooperative import run_in_slices
from web.request.multipart import parse_parts

NAME_BYTES, KEY_BYTES = 16, 32
#: Members of a body that say how the answer is delivered, or who asks, but not what it is; the model has two names.
STREAM_MEMBERS = frozenset({"stream", "stream_options"})
DELIVERY_MEMBERS = STREAM_MEMBERS | {"user", "metadata", "safety_identifier", "prompt_cache_key", "model"}


class NotCanonical(ValueError):
    """Raised for JSON that parsers read in different ways, so that equal values may not mean equal requests."""


@dataclass(frozen=True)
class Identity:
    """The name of an answer in Redis, and the key that seals it."""

    name: str
    key: bytes

    @classmethod
    def derive(cls, *parts: bytes) -> "Identity":
        derived = HKDF(hashes.SHA256(), NAME_BYTES + KEY_BYTES, None, b"farm answer").derive(digest(*parts))
        return cls(derived[:NAME_BYTES].hex(), derived[NAME_BYTES:])


def name_idempotency_key(idempotency_key: str, key_id: str) -> str:
    """The name of whatever an API key's requests with the idempotency key ask for."""
    return Identity.derive(b"idempotency", key_id.encode(), idempotency_key.encode()).name


def identify_request(name: str, idempotency_key: str, fingerprint: bytes) -> Identity:
    """Who a request with the idempotency key is among all that may come with it."""
    return Identity.derive(b"idempotency print", name.encode(), idempotency_key.encode(), fingerprint)


def digest(*parts: bytes) -> bytes:
    """A digest of the parts and of where each ends."""
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8))
        state.update(part)
    return state.digest()


def digest_body(body: RequestBody, ignored: frozenset[str] = frozenset()) -> bytes:
    """Equal for bodies that mean the same, whatever their `ignored` members; large ones are compared byte for byte."""
    if body.model_part is not None:
        return digest(b"form", *(part for each in list_parts(body) for part in each))
    if body.large_object is None:
        return digest_json(body.data, ignored)
    return digest(b"bytes", hash_slowly(body.data))


def digest_json(data: bytes, ignored: frozenset[str] = frozenset()) -> bytes:
    """Likewise, of bytes that may be a JSON object."""
    try:
        members = parse_canonically(data)
        return digest(b"json", encode_canonically({name: members[name] for name in members.keys() - ignored}))
    except NotCanonical:
        return digest(b"bytes", hash_slowly(data))


def list_parts(body: RequestBody) -> Iterator[tuple[bytes, bytes]]:
    """Name and hash of each part of a form, whose boundary is another in each try."""
    for part in parse_parts(body.data, body.content_type):
        yield part.name.encode(), hash_slowly(body.data[part.start : part.end])


def hash_slowly(data: bytes) -> bytes:
    """SHA-256; other requests get their turn while a large body is read."""
    state, view = hashlib.sha256(), memoryview(data)
    if len(data) <= MAX_PIECE_BYTES:
        state.update(view)
        return state.digest()

    def update() -> Iterator[None]:
        for start in range(0, len(data), MAX_PIECE_BYTES):
            state.update(view[start : start + MAX_PIECE_BYTES])
            yield

    run_in_slices(update())
    return state.digest()


def parse_canonically(data: bytes) -> dict[str, Any]:
    """Parses a JSON object. Raises NotCanonical."""
    try:
        value = json.loads(data, object_pairs_hook=build_object, parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        raise NotCanonical from None
    if not isinstance(value, dict):
        raise NotCanonical
    return value


def build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two members of the same name, one parser takes the first and another the last."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise NotCanonical
    return members


def refuse_constant(name: str) -> Any:
    raise NotCanonical(name)


def encode_canonically(value: dict[str, Any]) -> bytes:
    """JSON with sorted members and without white space. Raises NotCanonical."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise NotCanonical from None
