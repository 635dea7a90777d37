import stat
from pathlib import Path

import pytest

from shared.credentials.unsealing import Unsealer, read_or_create_key
from shared.errors import WrongSecretKey


def test_what_is_sealed_opens_with_the_secret_key():
    opener = Unsealer("key")
    assert opener.unseal(opener.sealer.seal("token", "id1"), "id1") == "token"


def test_the_same_key_opens_it_in_another_process():
    assert Unsealer("key").unseal(Unsealer("key").sealer.seal("token", "id1"), "id1") == "token"


@pytest.mark.parametrize(("key", "context"), [("other", "id1"), ("key", "id2")])
def test_another_key_or_context_does_not_open_it(key: str, context: str):
    sealed = Unsealer("key").sealer.seal("token", "id1")
    with pytest.raises(WrongSecretKey):
        Unsealer(key).unseal(sealed, context)


def test_the_key_of_the_data_dir_is_made_once_and_is_its_owners_alone(tmp_path: Path):
    made = read_or_create_key(tmp_path / "data")
    assert read_or_create_key(tmp_path / "data") == made
    assert stat.S_IMODE((tmp_path / "data" / "secret.key").stat().st_mode) == 0o600
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["secret.key"]
