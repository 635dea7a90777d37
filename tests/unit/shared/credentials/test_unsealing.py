"""Tokens are sealed with a key that only the secret key opens."""

import stat
from pathlib import Path

import pytest

from shared.credentials.sealing import HPKE_SUITE, KEY_ID_BYTES, VERSION_BYTE, Sealer
from shared.credentials.unsealing import MIN_KEY_LENGTH, Unsealer, derive, derive_stretched, read_or_create_key
from shared.errors import WrongSecretKey


def test_sealed_token_is_unsealed_with_the_secret_key():
    unsealer = Unsealer("key")
    assert unsealer.unseal(unsealer.sealer.seal("token", "id1"), "id1") == "token"


def test_sealed_token_is_unsealed_by_another_process_with_the_same_key():
    assert Unsealer("key").unseal(Unsealer("key").sealer.seal("token", "id1"), "id1") == "token"


@pytest.mark.parametrize(("key", "context"), [("other", "id1"), ("key", "id2")])
def test_another_key_or_context_does_not_unseal_a_token(key: str, context: str):
    sealed = Unsealer("key").sealer.seal("token", "id1")
    with pytest.raises(WrongSecretKey):
        Unsealer(key).unseal(sealed, context)


LONG_KEY = "k" * MIN_KEY_LENGTH


def test_sealed_value_begins_with_a_version_byte_and_the_id_of_its_key():
    first, again = (Unsealer(LONG_KEY).sealer.seal("token", "id1") for _ in range(2))
    other = Unsealer("o" * MIN_KEY_LENGTH).sealer.seal("token", "id1")
    assert {sealed[:1] for sealed in (first, again, other)} == {VERSION_BYTE}
    assert first[: 1 + KEY_ID_BYTES] == again[: 1 + KEY_ID_BYTES] != other[: 1 + KEY_ID_BYTES]


@pytest.mark.parametrize("key", ["short", LONG_KEY])
def test_value_of_an_older_farm_is_still_unsealed(key: str):
    sealed = HPKE_SUITE.encrypt(b"token", derive(key).public_key(), b"id1")
    assert Unsealer(key).unseal(sealed, "id1") == "token"


def test_older_value_that_begins_like_a_newer_one_by_chance_is_unsealed():
    sealer = Sealer(derive(LONG_KEY).public_key(), has_header=False)
    sealed = next(value for _ in range(10_000) if (value := sealer.seal("token", "id1"))[:1] == VERSION_BYTE)
    assert Unsealer(LONG_KEY).unseal(sealed, "id1") == "token"


def test_short_key_is_stretched_and_a_long_one_is_not():
    assert derive_stretched("short").private_bytes_raw() != derive("short").private_bytes_raw()
    assert len(Unsealer("short").public_keys) == 2
    assert len(Unsealer(LONG_KEY).public_keys) == 1


def test_secret_key_file_is_created_once_and_private_to_its_owner(tmp_path: Path):
    key = read_or_create_key(tmp_path / "data")
    assert read_or_create_key(tmp_path / "data") == key
    assert stat.S_IMODE((tmp_path / "data" / "secret.key").stat().st_mode) == 0o600
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["secret.key"]
