"""A large JSON object is read as json.loads reads it, in pieces that are small whatever it holds."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.json_object import InvalidObject, parse_object
from shared.protocol.large_body import MAX_PIECE_BYTES, LargeBody, apply_edits
from web.request import large_json
from web.request.body import FIELDS
from web.request.large_json import MAX_DEPTH, WINDOW_BYTES, LargeObject
from web.request.media import measure_json

EXAMPLES = settings(max_examples=60, deadline=None)
TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=8) | st.text(
    'a\\"u/\u00e9\U0001f600', max_size=40
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda values: st.lists(values, max_size=9) | st.dictionaries(TEXT, values, max_size=9),
    max_leaves=40,
)
MEMBERS = st.dictionaries(st.sampled_from(FIELDS) | TEXT, VALUES, max_size=6)
USUAL_WINDOWS = {name: getattr(large_json, name) for name in ("WINDOW_BYTES", "FIRST_WINDOW_BYTES", "MIN_WINDOW_BYTES")}
SMALL_WINDOWS = {"WINDOW_BYTES": 48, "FIRST_WINDOW_BYTES": 16, "MIN_WINDOW_BYTES": 2}


@pytest.fixture(autouse=True, scope="module")
def small_windows():
    """Windows so small that every way through the parser is taken."""
    with pytest.MonkeyPatch.context() as patch:
        for name, size in SMALL_WINDOWS.items():
            patch.setattr(large_json, name, size)
        yield


def check(body: bytes) -> LargeObject | None:
    """None for a body that is refused."""
    large = LargeObject(body, FIELDS)
    try:
        for _ in large.check():
            pass
    except InvalidObject:
        return None
    return large


def parse(body: bytes) -> dict[str, Any] | None:
    try:
        return parse_object(body, FIELDS)
    except InvalidObject:
        return None


@given(MEMBERS, st.booleans(), st.sampled_from([None, 1]), st.booleans())
@EXAMPLES
def test_valid_object_is_read_as_by_json_loads(
    members: dict[str, Any], escaped: bool, indent: int | None, marked: bool
):
    # A member that is kept has to be short.
    members = {name: value for name, value in members.items() if name not in FIELDS or len(repr(value)) < 9}
    text = json.dumps(members, ensure_ascii=escaped, indent=indent)
    body = b"\xef\xbb\xbf" * marked + text.encode("utf-8", "surrogatepass")
    large = check(body)
    assert large is not None
    assert repr(large.fields) == repr({name: value for name, value in members.items() if name in FIELDS})
    for name, span in large.spans.items():
        assert repr(json.loads(body[span.start : span.end])) == repr(members[name])
    edited = apply_edits(body, large.build_edits({"model": "m/x", "stream_options": {"a": 1}}))
    assert isinstance(edited, bytes)
    assert repr(json.loads(edited)) == repr({**members, "model": "m/x", "stream_options": {"a": 1}})


@given(MEMBERS, st.booleans(), st.data())
@EXAMPLES
def test_broken_object_is_refused_when_json_loads_refuses_it(
    members: dict[str, Any], escaped: bool, data: st.DataObject
):
    body = json.dumps({"x": [members], **members}, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    start = data.draw(st.integers(0, len(body)))
    end = min(len(body), start + data.draw(st.integers(0, 3)))
    inserted = data.draw(
        st.sampled_from([b"", b",", b'"', b"\\", b"]", b"}", b"[", b"{", b":", b"1", b"\x00", b"\xc3", b" "])
    )
    broken = body[:start] + inserted + body[end:]
    is_too_long = any(len(repr(value)) > 9 for name, value in members.items() if name in FIELDS)
    if not is_too_long:
        assert (check(broken) is None) == (parse(broken) is None)


BROKEN = (
    *(b"", b"[]", b"{", b"{}x", b'{"a":1,}', b'{"a":[1,]}', b'{"a":[,1]}', b'{"a":[1,,2]}', b'{,"a":1}', b'{"a" 1}'),
    *(
        b'{"a":}',
        b'{"a":"\n"}',
        b'{"a":"\\x"}',
        b'{"a":"\xff"}',
        b'{"a":[1}',
        b'{"a":{"b":1]}',
        b'{"a":01}',
        b'{"a":tru}',
    ),
    *(b'{"a":"', b'{"a":"\\', b'{"a":"\\u12', b'{"model":"a","mod\\u0065l":"b"}', b'{"a":' + 5000 * b"1" + b"}"),
    b'{"a":[' + 600_000 * b"[]," + b"[]]}",
)


@pytest.mark.parametrize("body", BROKEN)
def test_body_is_refused(body: bytes):
    assert parse(body) is None
    assert check(body) is None


def test_deep_nesting_is_refused():
    """Also where json.loads takes more of it than here, as Python 3.13's does."""
    assert check(b'{"a":' + 2 * MAX_DEPTH * b"[" + 2 * MAX_DEPTH * b"]" + b"}") is None


@pytest.fixture
def usual_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in USUAL_WINDOWS.items():
        monkeypatch.setattr(large_json, name, size)


@pytest.mark.usefixtures("usual_windows")
@pytest.mark.parametrize("escaped", [True, False])
def test_files_are_told_from_text_as_in_a_small_body(escaped: bool):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + 3000 * "QUJD"}}
    parts = [{"type": "text", "text": 300 * "so say\u00e9 "}, image, image, 400 * "0123", {"data": 9000 * "a"}]
    body = json.dumps({"model": "m", "messages": [{"content": parts}]}, ensure_ascii=escaped).encode()
    large = check(body)
    assert large is not None
    assert (len(body) - large.media_bytes, large.media) == measure_json(body, json.loads(body))


@pytest.mark.usefixtures("usual_windows")
@pytest.mark.parametrize(
    "value",
    [
        "a" * 1_000_000,
        '\\"\u00e9' * 200_000,
        [{"role": "user", "content": 30 * "long "} for _ in range(3000)],
        list(range(150_000)),
        [list(range(1000)) for _ in range(150)],
        [[["a" * 100] * 90] * 10] * 5,
    ],
)
def test_no_piece_is_larger_than_a_window(value: Any, monkeypatch: pytest.MonkeyPatch):
    pieces: list[int] = []

    def decode(piece: bytes) -> str:
        pieces.append(len(piece))
        return piece.decode("utf-8", "surrogatepass")

    monkeypatch.setattr(large_json, "decode", decode)
    body = json.dumps({"x": value}).encode()
    assert check(body) is not None
    assert max(pieces) <= WINDOW_BYTES + 2
    assert sum(pieces) < 6 * len(body)


def test_large_body_is_cut_into_pieces_and_edits():
    data = bytearray(b"0123456789" * 100_000)
    body = LargeBody(data, [])
    assert (len(body), b"".join(body.iter_pieces())) == (len(data), data)
    assert max(map(len, body.iter_pieces())) <= MAX_PIECE_BYTES
