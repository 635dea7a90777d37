"""The Idempotency-Key header is a string, quoted or bare."""

import pytest

from shared.errors import ApiError
from web.replay.idempotency_key import MAX_KEY_LENGTH, parse_key


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("", ""),
        ("8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
        ('"8e03978e"', "8e03978e"),
        (' "a b" ', "a b"),
        (r'"a\"b\\c"', r"a\"b\c".replace('\\"', '"')),
        ('"k";version=2', "k"),
        ("k" * MAX_KEY_LENGTH, "k" * MAX_KEY_LENGTH),
        ("a,b;c", "a,b;c"),
        ("ä", ""),
        ("a\x7f", ""),
        ("a\tb", ""),
    ],
)
def test_key_is_read(header: str, key: str):
    assert parse_key(header) == key


@pytest.mark.parametrize(
    "header",
    [
        '"open',
        '"a"b',
        '"a"b"',
        r'"a\b"',
        '""',
        "a b",
        "k" * (MAX_KEY_LENGTH + 1),
        '"' + "k" * (MAX_KEY_LENGTH + 1) + '"',
    ],
)
def test_malformed_key_is_refused(header: str):
    with pytest.raises(ApiError) as refused:
        parse_key(header)
    assert (refused.value.status, refused.value.code) == (400, "invalid_idempotency_key")
