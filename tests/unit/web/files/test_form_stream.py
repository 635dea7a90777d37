"""A form is read as it arrives, however it is cut into pieces."""

from collections.abc import Iterator

import pytest

from web.files.form_stream import MAX_PARTS, FieldValue, FilePiece, FileStart, FormEvent, parse_disposition, parse_form
from web.request.multipart import MAX_FIELD_BYTES, MAX_HEADER_BYTES, InvalidForm

TYPE = "multipart/form-data; boundary=xyz"
FILE = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\nContent-Type: a/b\r\n\r\n'
END = b"\r\n--xyz--\r\n"


def encode_field(name: str, value: bytes) -> bytes:
    return b'--xyz\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), value)


def cut(body: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


def join(events: Iterator[FormEvent]) -> tuple[list[FormEvent], bytes]:
    """The events but for the content, and the content."""
    heads, content = list[FormEvent](), b""
    for event in events:
        if isinstance(event, FilePiece):
            content += event.data
        else:
            heads.append(event)
    return heads, content


@pytest.mark.parametrize("size", [1, 2, 7, 64, 65_536])
@pytest.mark.parametrize(
    "content",
    [b"", b"{}\n{}\n", b"\r\n\r\n", b"--xy", b"\r\n--xy", b"\n--xyz\r\n", b"a\r\n-\r\n--xy-xyz", bytes(range(256)) * 3],
)
def test_content_is_what_was_sent(content: bytes, size: int):
    body = encode_field("purpose", b"batch") + FILE + content + b"\r\n" + encode_field("x", "ü".encode())[:-2] + END
    heads, received = join(parse_form(cut(body, size), TYPE))
    assert received == content
    assert heads == [FieldValue("purpose", "batch"), FileStart("file", "a.jsonl"), FieldValue("x", "ü")]


def test_form_may_begin_with_an_empty_line():
    assert join(parse_form([b"\r\n" + FILE + b"x" + END], TYPE))[1] == b"x"


def test_large_content_comes_in_pieces():
    pieces = [
        event.data
        for event in parse_form(cut(FILE + b"x" * 300_000 + END, 65_536), TYPE)
        if isinstance(event, FilePiece)
    ]
    assert sum(map(len, pieces)) == 300_000
    assert max(map(len, pieces)) <= 65_536 + len(END)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form",
        FILE + b"x",
        FILE + b"x\r\n--xyz",
        b"--xyz\r\nContent-Type: text/plain\r\n\r\nx" + END,
        b"--xyz\r\nx: " + b"y" * MAX_HEADER_BYTES,
        encode_field("purpose", b"p" * (MAX_FIELD_BYTES + 1)) + END[2:],
        FILE + b"a\r\n--xyzz\r\nb" + END,
        FILE + b"--xyz" + END,
        b"preamble\r\n" + FILE + END,
        encode_field("a", b"") * (MAX_PARTS + 1) + END[2:],
        b'--xyz\nContent-Disposition: form-data; name="a"\n\nx' + END,
    ],
)
def test_form_that_cannot_be_read_is_refused(body: bytes):
    with pytest.raises(InvalidForm):
        list(parse_form(cut(body, 65_536), TYPE))


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=\x00"])
def test_form_without_a_boundary_is_refused(content_type: str):
    with pytest.raises(InvalidForm):
        list(parse_form([b""], content_type))


@pytest.mark.parametrize(
    ("parameters", "filename"),
    [
        ('filename="a b.jsonl"', "a b.jsonl"),
        ("filename=a.jsonl", "a.jsonl"),
        ('filename="b%22\\".jsonl"', 'b"".jsonl'),
        ('filename=""', ""),
        ("filename=\"x\"; filename*=UTF-8'en'B%C3%BCch", "Büch"),
        ("filename*=utf-8''B%C3%BCch", "Büch"),
    ],
)
def test_name_of_the_file_is_read_in_the_forms_that_programs_send(parameters: str, filename: str):
    head = f'Content-Disposition: form-data; name="file"; {parameters}'.encode()
    assert parse_disposition(head) == ("file", filename)
