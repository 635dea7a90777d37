"""Bodies that mean the same have one identity, and no others."""

import json

import pytest

from shared.protocol.large_body import MAX_PIECE_BYTES
from web.replay.identity import Identity, digest, digest_body
from web.request.body import parse_form, parse_json

BODY = {"model": "m", "messages": [{"role": "user", "content": "é"}], "temperature": 0.5}


def identify(data: bytes) -> bytes:
    return digest_body(parse_json(data, "application/json", ""))


def test_order_and_spelling_do_not_matter():
    spellings = [
        json.dumps(BODY).encode(),
        json.dumps(dict(reversed(BODY.items())), indent=1, ensure_ascii=False).encode(),
        json.dumps(BODY).replace("0.5", "5e-1").encode("utf-16"),
    ]
    assert len(set(map(identify, spellings))) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b'{"model": "m", "a": 1}', b'{"model": "m", "a": 1.0}'),
        (b'{"model": "m", "a": 1}', b'{"model": "m", "a": "1"}'),
        (b'{"model": "m", "a": 1}', b'{"model": "m", "a": true}'),
        (b'{"model": "m", "a": []}', b'{"model": "m", "a": {}}'),
        (b'{"model": "m", "a": null}', b'{"model": "m"}'),
        (b'{"model": "m", "a": NaN}', b'{"model": "m", "a": Infinity}'),
        (b'{"model": "m", "a": 1e999}', b'{"model": "m", "a": 2e999}'),
        (b'{"model": "m", "a": 1, "a": 2}', b'{"model": "m", "a": 2}'),
        (b'{"model": "m", "a": [{"b": 1, "b": 2}]}', b'{"model": "m", "a": [{"b": 2}]}'),
        (b'{"model": "m", "a": "\\ud800"}', b'{"model": "m", "a": "?"}'),
    ],
)
def test_different_bodies_are_told_apart(first: bytes, second: bytes):
    assert identify(first) != identify(second)


def test_large_bodies_are_compared_byte_for_byte():
    filler = b"x" * MAX_PIECE_BYTES
    first, second = (b'{"model": "m",%s"a": "%s"}' % (space, filler) for space in (b"", b" "))
    assert identify(first) == identify(first) != identify(second)


def test_forms_are_compared_part_by_part():
    def build(boundary: str, *parts: tuple[str, str]) -> bytes:
        written = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in parts
        ]
        data = "".join([*written, f"--{boundary}--\r\n"]).encode()
        return digest_body(parse_form(data, f"multipart/form-data; boundary={boundary}", ""))

    same = [build(boundary, ("model", "m"), ("a", "b")) for boundary in ("x", "y")]
    assert same[0] == same[1]
    others = [
        build("x", ("model", "m"), ("a", "c")),
        build("x", ("model", "m"), ("b", "b")),
        build("x", ("model", "m")),
    ]
    assert len({same[0], *others}) == 4


def test_parts_are_not_run_together():
    assert digest(b"ab", b"c") != digest(b"a", b"bc")
    first, second = Identity.derive(b"ab", b"c"), Identity.derive(b"a", b"bc")
    assert first.name != second.name
    assert first.key != second.key
    assert first.key.hex()[:32] != first.name
