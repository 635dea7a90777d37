"""Multipart forms are parsed strictly and in linear time."""

import sys
from typing import Any

import pytest

from web.request import multipart
from web.request.multipart import InvalidForm, is_form, parse_parts, read_text_fields

TYPE = "multipart/form-data; boundary=b"
MODEL = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a\xe2\x80\xafb.mp3"\r\n'
FILE += b"Content-Type: audio/mpeg\r\n\r\n\x00\n--x\r\n\xff\r\n"
END = b"--b--\r\n"


def read_fields(body: bytes, content_type: str = TYPE) -> dict[str, str]:
    return read_text_fields(body, parse_parts(body, content_type), ("model",))


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (MODEL + END, TYPE),
        (FILE + MODEL + END, 'Multipart/Form-Data; charset=utf-8; Boundary="b"'),
        (MODEL + b"--b--", "multipart/form-data;boundary=b"),
        (MODEL.replace(b"Content-D", b"content-type: text/plain; charset=UTF-8\r\ncontent-d") + END, TYPE),
        (MODEL.replace(b'"model"', b"model") + END, TYPE),
    ],
)
def test_fields_are_read(body: bytes, content_type: str):
    assert is_form(content_type)
    assert read_fields(body, content_type) == {"model": "m"}


@pytest.mark.parametrize(
    "body",
    [
        MODEL.replace(b"\r\n", b"\n") + b"--b--\n",
        MODEL.replace(b"\r\n\r\n", b"\n\n") + END,
        MODEL + MODEL.replace(b"\r\n", b"\n") + END,
        FILE.removesuffix(b"\r\n") + MODEL.replace(b"--b\r\n", b"\n--b\n") + MODEL + END,
        MODEL,
        b"preamble\r\n" + MODEL + END,
        MODEL + END + b"epilogue",
        MODEL + END + MODEL + END,
        MODEL + b"--b \r\n" + MODEL.removeprefix(b"--b\r\n") + END,
        MODEL + MODEL.replace(b"m\r\n", b"other\r\n") + END,
        MODEL.replace(b'"model"', b'"mod\\el"') + END,
        MODEL.replace(b'name="model"', b'name="model"; name="x"') + END,
        MODEL.replace(b'name="model"', b"name*=utf-8''model") + END,
        MODEL.replace(b'"model"', b'"model"; filename="m"') + END,
        MODEL.replace(b"\r\n\r\n", b"\r\n Content-Type: text/plain\r\n\r\n") + END,
        MODEL.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n") + END,
        MODEL.replace(b"\r\n\r\n", b"\r\nContent-Type: text/plain; charset=utf-16\r\n\r\n") + END,
        MODEL.replace(b"\r\n\r\n", b"\r\nContent-Disposition: form-data; name=x\r\n\r\n") + END,
        MODEL.replace(b"m\r\n", b"\xff\r\n") + END,
        b"--b\r\nx: " + b"x" * multipart.MAX_HEADER_BYTES + b"\r\n\r\n\r\n" + END,
        FILE * multipart.MAX_PARTS + MODEL + END,
    ],
)
def test_form_that_parsers_read_differently_is_refused(body: bytes):
    with pytest.raises(InvalidForm):
        read_fields(body)


@pytest.mark.parametrize(
    "content_type", ["", "; boundary=", "; boundary=b; boundary=c", "; boundary*=b", '; boundary="b', "; boundary=é"]
)
def test_form_without_a_clear_boundary_is_refused(content_type: str):
    with pytest.raises(InvalidForm):
        read_fields(MODEL + END, multipart.MEDIA_TYPE + content_type)


class CountingBytes(bytes):
    """Counts the bytes that `find` has looked at."""

    searched = 0

    def find(self, *arguments: Any) -> int:  # type: ignore[override]
        found = super().find(*arguments)
        start, end = arguments[1], arguments[2] if len(arguments) > 2 else len(self)
        CountingBytes.searched += (found if found >= 0 else end) - start
        return found


def count_steps(body: bytes) -> int:
    """Lines of this repository's code that parsing takes, and bytes searched."""
    steps = CountingBytes.searched = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal steps
        steps += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        parse_parts(CountingBytes(body), TYPE)
    except InvalidForm:
        pass
    finally:
        sys.settrace(before)
    return steps + CountingBytes.searched


@pytest.mark.parametrize(
    "piece",
    [
        b'\r\nContent-Disposition: form-data; name="model"\r\n',
        b'--b\nContent-Disposition: form-data; name="model"\n\nm\n',
        b"\r\n--",
        FILE,
    ],
)
def test_work_grows_with_the_size_only(piece: bytes):
    for head in (b"", MODEL):
        assert count_steps(head + 400 * piece + END) <= 5 * count_steps(head + 100 * piece + END)
