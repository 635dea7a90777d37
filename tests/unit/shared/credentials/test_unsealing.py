"""Tokens are sealed with a key that only the secret key opens."""

import stat
from pathlib import Path

import pytest

from shared.credentials.unsealing import Unsealer, read_or_create_key
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


def test_secret_key_file_is_created_once_and_private_to_its_owner(tmp_path: Path):
    key = read_or_create_key(tmp_path / "data")
    assert read_or_create_key(tmp_path / "data") == key
    assert stat.S_IMODE((tmp_path / "data" / "secret.key").stat().st_mode) == 0o600
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["secret.key"]
