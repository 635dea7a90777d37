"""Export and import between two farms, and the warning about tokens that rotate after an export."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.backup_encryption import decrypt, encrypt
from shared.errors import FarmError
from tests.system.farm import Farm, start_farm
from tests.upstream import Upstream, start_simulator
from tests.waiting import eventually

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    process, upstream = start_simulator("--accounts", "4", "--rotate")
    yield upstream
    process.terminate()
    process.wait()
    assert process.stdout
    process.stdout.close()


@pytest.fixture
def old(tmp_path: Path, upstream: Upstream) -> Iterator[Farm]:
    farm = start_farm(tmp_path / "old", upstream, 3)
    yield farm
    assert farm.command("stop").returncode == 0


def test_import_takes_over_everything_that_was_exported(tmp_path: Path, old: Farm, upstream: Upstream):
    key = old.json("keys", "create", "--name", "moved", "--rpm", "77", "--quota-tokens", "1000")
    assert old.post("/v1/chat/completions", CHAT, key=key["key"]).status_code == 200
    ids = [credential["id"] for credential in old.credentials()]
    disabled = ids[0]
    old.command("credentials", "disable", disabled)
    backup = tmp_path / "farm.backup"
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    result = old.command("export", str(backup), "--move", "--passphrase-file", str(tmp_path / "passphrase"))
    assert result.returncode == 0, result.stderr
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert b"sim-rt-" not in backup.read_bytes()
    assert {credential["state"] for credential in old.credentials()} == {"disabled"}

    new = start_farm(tmp_path / "new", upstream, 0)
    try:
        wrong = new.command("import", str(backup), "--passphrase-file", "-", stdin="a wrong passphrase\n")
        assert (wrong.returncode, "wrong" in wrong.stderr) == (1, True)
        for _ in range(2):
            result = new.command("import", str(backup), "--passphrase-file", "-", stdin=PASSPHRASE + "\n")
            assert result.returncode == 0, result.stderr
        assert "3 credentials known already" in result.stdout
        states = {record["id"]: record["state"] for record in new.credentials()}
        assert states == {id_: "disabled" if id_ == disabled else "active" for id_ in ids}
        response = eventually(lambda: new.post("/v1/chat/completions", CHAT, key=key["key"]))
        assert response.status_code == 200
        imported = new.json("keys", "show", key["id"])
        assert (imported["name"], imported["rpm"], imported["quota_tokens"]) == ("moved", 77, 1000)
        assert upstream.counters().get("reused_refresh_tokens", 0) == 0
    finally:
        assert new.command("stop").returncode == 0


def test_rotation_after_an_export_is_reported(tmp_path: Path, old: Farm):
    result = old.command("export", str(tmp_path / "backup"), "--passphrase-file", "-", stdin=PASSPHRASE + "\n")
    assert result.returncode == 0, result.stderr
    (credential, *_) = old.credentials()
    assert (credential["exported_at"] > 0, credential["export_outdated"]) == (True, False)
    assert old.command("credentials", "refresh", credential["id"]).returncode == 0
    assert old.json("credentials", "show", credential["id"])["export_outdated"]
    assert "1 credentials have rotated since they were exported" in old.command("status").stdout
    assert "its exported copy is no longer valid" in old.log()


def test_export_never_overwrites_a_file(tmp_path: Path, old: Farm):
    (tmp_path / "backup").write_text("something else")
    result = old.command("export", str(tmp_path / "backup"), "--passphrase-file", "-", stdin=PASSPHRASE + "\n")
    assert result.returncode == 1
    assert (tmp_path / "backup").read_text() == "something else"


@pytest.mark.parametrize(
    "modify", [lambda backup: backup[:-1], lambda backup: b"x" + backup, lambda backup: backup[:30]]
)
def test_modified_backup_is_rejected(modify):
    with pytest.raises(FarmError):
        decrypt(modify(encrypt(b"content", PASSPHRASE)), PASSPHRASE)


def test_backup_is_decrypted_by_its_passphrase_only():
    backup = encrypt(b"content", PASSPHRASE)
    assert decrypt(backup, PASSPHRASE) == b"content"
    with pytest.raises(FarmError, match="wrong"):
        decrypt(backup, PASSPHRASE + " ")
    with pytest.raises(FarmError, match="8 characters"):
        encrypt(b"content", "short")
