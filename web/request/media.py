"""Tells text from images, audio and files in a request body, so that tokens are reserved for the text only. No I/O."""

import re
from typing import Any

from web.request.multipart import Part

#: Bytes of a body below which it is taken for text as a whole, and of a string that may be an encoded file.
MIN_MEDIUM_BYTES = 1024
#: Start of a data: URL (RFC 2397), or of base64 (RFC 4648): no text runs on for so long without a space.
ENCODED_FILE = re.compile(r"data:[^,\s]{0,200},|[A-Za-z0-9+/_=-]{256}")


def measure_json(data: bytes, fields: dict[str, Any]) -> tuple[int, int]:
    """Returns the bytes of text in a JSON body, and how many encoded files it holds."""
    if len(data) < MIN_MEDIUM_BYTES:
        return len(data), 0
    media = [len(value) for value in find_long_strings(fields) if ENCODED_FILE.match(value)]
    return max(0, len(data) - sum(media)), len(media)


def find_long_strings(value: Any) -> list[str]:
    """All strings in a JSON value that are long enough to be an encoded file."""
    strings, remaining = [], [value]
    while remaining:
        value = remaining.pop()
        if isinstance(value, str):
            if len(value) >= MIN_MEDIUM_BYTES:
                strings.append(value)
        elif isinstance(value, dict):
            remaining += value.values()
        elif isinstance(value, list):
            remaining += [item for item in value if isinstance(item, (str, dict, list))]
    return strings


def measure_form(parts: list[Part]) -> tuple[int, int]:
    """Returns the bytes of text in a form, and how many files it holds."""
    texts = [part.end - part.start for part in parts if part.is_text]
    return sum(texts), len(parts) - len(texts)
