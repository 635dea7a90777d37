"""Tokens are reserved for the text of a request, not for the bytes of images, audio and files."""

import base64
import json
from typing import Any

import pytest

from web.request.media import measure_form, measure_json
from web.request.multipart import parse_parts

FILE = base64.b64encode(bytes(range(256)) * 400).decode()
TEXT = "It was a bright cold day in April. " * 1000


def content(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": list(parts)}]}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{FILE}"}},
        {"type": "input_audio", "input_audio": {"data": FILE, "format": "wav"}},
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{FILE}"}},
        {"type": "input_image", "image_url": f"data:image/svg+xml;utf8,{'<svg>' * 500}"},
    ],
)
def test_files_in_json_are_counted_and_their_bytes_are_not(part: dict[str, Any]):
    fields = content({"type": "text", "text": TEXT}, part, part)
    text_bytes, media = measure_json(json.dumps(fields).encode(), fields)
    assert media == 2
    assert len(TEXT) < text_bytes < len(TEXT) + 500


@pytest.mark.parametrize("text", [TEXT, "\u660e" * 5000, "data: {" + TEXT, json.dumps({"a": TEXT}), "a," * 5000])
def test_long_texts_are_text(text: str):
    fields = content({"type": "text", "text": text})
    data = json.dumps(fields).encode()
    assert measure_json(data, fields) == (len(data), 0)


def test_files_in_a_form_are_counted_and_their_bytes_are_not():
    body = b"\r\n".join(
        [
            *(b"--b", b'Content-Disposition: form-data; name="model"', b"", b"whisper"),
            *(b"--b", b'Content-Disposition: form-data; name="prompt"', b"", b"Names: Ada"),
            *(b"--b", b'Content-Disposition: form-data; name="file"; filename="a.wav"', b"", bytes(100_000)),
            *(b"--b--", b""),
        ]
    )
    assert measure_form(parse_parts(body, "multipart/form-data; boundary=b")) == (len("whisperNames: Ada"), 1)
