"""A farm that moves: what one exports another takes over, and a token that rotates afterwards is called out."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.backup_encryption import decrypt, encrypt
from shared.errors import FarmError
from tests.conftest import start_simulator
from tests.system.farm import Farm, start
from tests.upstream import Upstream
from tests.waiting import eventually

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
PHRASE = "correct horse battery staple"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    process, found = start_simulator("--accounts", "4", "--rotate")
    yield found
    process.terminate()
    process.wait()
    assert process.stdout
    process.stdout.close()


@pytest.fixture
def old(tmp_path: Path, upstream: Upstream) -> Iterator[Farm]:
    made = start(tmp_path / "old", upstream, 3)
    yield made
    assert made.command("stop").returncode == 0


def test_another_farm_takes_over_all_that_was_exported(tmp_path: Path, old: Farm, upstream: Upstream):
    made = old.json("keys", "create", "--name", "moved", "--rpm", "77", "--quota-tokens", "1000")
    assert old.post("/v1/chat/completions", CHAT, key=made["key"]).status_code == 200
    ids = {one["id"]: one for one in old.json("credentials", "list")}
    dead = next(iter(ids))
    old.command("credentials", "disable", dead)
    backup = tmp_path / "farm.backup"
    (tmp_path / "phrase").write_text(PHRASE + "\n")
    done = old.command("export", str(backup), "--move", "--passphrase-file", str(tmp_path / "phrase"))
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert b"sim-rt-" not in backup.read_bytes()
    assert {one["state"] for one in old.json("credentials", "list")} == {"disabled"}

    new = start(tmp_path / "new", upstream, 0)
    try:
        wrong = new.command("import", str(backup), "--passphrase-file", "-", stdin="a wrong passphrase\n")
        assert (wrong.returncode, "wrong" in wrong.stderr) == (1, True)
        for _ in range(2):
            done = new.command("import", str(backup), "--passphrase-file", "-", stdin=PHRASE + "\n")
            assert done.returncode == 0, done.stderr
        assert "3 credentials known already" in done.stdout
        moved = {one["id"]: one["state"] for one in new.json("credentials", "list")}
        assert moved == {one: "disabled" if one == dead else "active" for one in ids}
        answer = eventually(lambda: new.post("/v1/chat/completions", CHAT, key=made["key"]))
        assert answer.status_code == 200
        key = new.json("keys", "show", made["id"])
        assert (key["name"], key["rpm"], key["quota_tokens"]) == ("moved", 77, 1000)
        assert upstream.counters().get("reused_refresh_tokens", 0) == 0
    finally:
        assert new.command("stop").returncode == 0


def test_a_token_that_rotates_after_it_was_exported_is_called_out(tmp_path: Path, old: Farm):
    done = old.command("export", str(tmp_path / "backup"), "--passphrase-file", "-", stdin=PHRASE + "\n")
    assert done.returncode == 0, done.stderr
    (one, *_) = old.json("credentials", "list")
    assert (one["exported_at"] > 0, one["export_outdated"]) == (True, False)
    assert old.command("credentials", "refresh", one["id"]).returncode == 0
    assert old.json("credentials", "show", one["id"])["export_outdated"]
    assert "1 credentials have rotated since they were exported" in old.command("status").stdout
    assert "the one that was exported is good no more" in old.log()


def test_a_backup_never_overwrites_a_file(tmp_path: Path, old: Farm):
    (tmp_path / "backup").write_text("something else")
    done = old.command("export", str(tmp_path / "backup"), "--passphrase-file", "-", stdin=PHRASE + "\n")
    assert done.returncode == 1
    assert (tmp_path / "backup").read_text() == "something else"


@pytest.mark.parametrize(
    "change", [lambda sealed: sealed[:-1], lambda sealed: b"x" + sealed, lambda sealed: sealed[:30]]
)
def test_a_backup_that_was_changed_is_refused(change):
    with pytest.raises(FarmError):
        decrypt(change(encrypt(b"content", PHRASE)), PHRASE)


def test_what_was_sealed_is_opened_by_its_passphrase_only():
    sealed = encrypt(b"content", PHRASE)
    assert decrypt(sealed, PHRASE) == b"content"
    with pytest.raises(FarmError, match="wrong"):
        decrypt(sealed, PHRASE + " ")
    with pytest.raises(FarmError, match="8 characters"):
        encrypt(b"content", "short")
