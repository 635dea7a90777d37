"""Reads the relay request out of an RQ job's data."""

import json
import zlib
from typing import Any

from shared.decoding import UnreadableRecord
from shared.protocol.messages import RelayRequest


def decode_request(data: bytes) -> RelayRequest | None:
    """The relay request in RQ's job data; None when it can't be read: not the farm's, broken, or of a newer format."""
    try:
        return RelayRequest.decode(parse_argument(data))
    except UnreadableRecord:
        return None


def parse_argument(data: bytes) -> Any:
    """The only argument in RQ's job data (function, instance, args, kwargs). Raises UnreadableRecord."""
    try:
        return json.loads(zlib.decompress(data))[2][0]
    except (zlib.error, ValueError, TypeError, LookupError, RecursionError):
        raise UnreadableRecord("the job's data can't be parsed") from None
