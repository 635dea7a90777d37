"""An export or import that fails leaves everything as it was."""

import json
import os
from pathlib import Path

import pytest
from redis import Redis

from launcher import export_steps
from launcher.backup_encryption import decrypt, encrypt
from shared import keys
from shared.api_keys.store import ApiKeys, hash_secret
from shared.credentials.sealing import Sealer, fingerprint
from shared.credentials.store import Credentials
from shared.pacing.account_limits import OwnLimits
from tests.console_batches import add_batch
from tests.integration.launcher.conftest import Run
from tests.redis_dump import dump_redis

PASSPHRASE = "correct horse battery staple"
MOVE = ("export", "backup", "--move", "--passphrase-file", "-")


@pytest.fixture
def store(redis: Redis, run: Run) -> Credentials:
    """Four credentials: active, disabled, dead, cooling."""
    store = Credentials(redis)
    ids = store.import_lines("default", ["one", "two", "three", "four"], token_origin="https://login.example").new_ids
    store.set_state("default", ids[1], "disabled", "by a person")
    store.set_state("default", ids[2], "dead", "invalid_grant")
    store.set_state("default", ids[3], "cooling", "rate_limited", 4e9)
    return store


def states(store: Credentials) -> list[tuple[str, str, str, float]]:
    return sorted((record.label, record.state, record.reason, record.until) for record in store.list(["default"]))


def exported_states(backup: Path) -> list[str]:
    content = json.loads(decrypt(backup.read_bytes(), PASSPHRASE))
    assert {credential["token_origin"] for credential in content["credentials"]} == {"https://login.example"}
    return sorted(credential["state"] for credential in content["credentials"])


def test_move_that_cannot_be_written_changes_nothing(run: Run, redis: Redis, store: Credentials, tmp_path: Path):
    run("credentials", "list")  # stamps the data with the farm's version
    before = dump_redis(redis)
    (tmp_path / "backup").write_text("something else")
    assert run(*MOVE, input=PASSPHRASE).exit_code == 1
    (tmp_path / "backup").unlink()
    assert run(*MOVE, input="short").exit_code == 1
    assert run("export", "nowhere/backup", "--move", "--passphrase-file", "-", input=PASSPHRASE).exit_code == 1
    assert dump_redis(redis) == before
    assert not (tmp_path / "backup").exists()


def test_move_that_fails_late_puts_every_state_back(
    run: Run, redis: Redis, store: Credentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = states(store)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    result = run(*MOVE, input=PASSPHRASE)
    assert (result.exit_code, "No space" in result.stderr) == (1, True)
    assert states(store) == before
    assert [record.exported_at for record in store.list(["default"])] == [0, 0, 0, 0]
    assert [path.name for path in tmp_path.iterdir() if "backup" in path.name] == []


def test_move_that_waits_in_vain_puts_every_state_back_and_a_second_try_succeeds(
    run: Run, redis: Redis, store: Credentials, tmp_path: Path
):
    before = states(store)
    (busy, *_) = store.list(["default"])
    redis.set(keys.lease(busy.id), "a:1")
    result = run(*MOVE, "--wait", "0.1", input=PASSPHRASE)
    assert (result.exit_code, "1 credentials are still serving" in result.stderr) == (1, True)
    assert states(store) == before
    redis.delete(keys.lease(busy.id))
    assert run(*MOVE, input=PASSPHRASE).exit_code == 0
    assert exported_states(tmp_path / "backup") == ["active", "cooling", "dead", "disabled"]
    assert {record.state for record in store.list(["default"])} == {"disabled"}


def test_move_that_was_killed_is_repeated_with_the_former_states(run: Run, store: Credentials, tmp_path: Path):
    for record in store.list(["default"]):
        store.suspend(record.pool, record.id, "moved to another farm")
    assert run(*MOVE, input=PASSPHRASE).exit_code == 0
    assert exported_states(tmp_path / "backup") == ["active", "cooling", "dead", "disabled"]


def test_move_tells_of_batches_that_stay_behind(run: Run, redis: Redis, store: Credentials):
    add_batch(redis, "k", "in_progress")
    add_batch(redis, "k", "completed")
    told = run(*MOVE, input=PASSPHRASE)
    assert told.exit_code == 0
    assert "stay here, without these accounts: 1 (" in told.stderr
    assert "batches" not in run("export", "copy", "--passphrase-file", "-", input=PASSPHRASE).stderr


def test_state_that_an_operator_sets_during_a_move_stays(store: Credentials):
    (record, *_) = store.list(["default"])
    store.suspend("default", record.id, "moved")
    store.enable("default", record.id)
    store.set_state("default", record.id, "disabled", "by a person")
    assert not store.resume("default", record.id)
    assert store.get(record.id, ["default"]).reason == "by a person"


@pytest.mark.parametrize("command", [("export", "backup", "--passphrase-file", "-"), ("credentials", "export")])
def test_rotation_while_an_export_is_written_is_called_out(
    run: Run, redis: Redis, store: Credentials, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
):
    """A token rotates right after it was read."""
    (rotating, *_) = store.list(["default"])
    read = export_steps.ExportSteps.record_export

    def record_and_rotate(steps: export_steps.ExportSteps) -> None:
        read(steps)
        assert redis.hget(keys.credential(rotating.id), "exported_at"), "marked before the tokens are read"
        redis.hset(keys.credential(rotating.id), "export_outdated", 1)

    monkeypatch.setattr(export_steps.ExportSteps, "record_export", record_and_rotate)
    result = run(*command, input=PASSPHRASE)
    assert (result.exit_code, "1 credentials rotated" in result.stderr) == (0, True), result.stderr
    assert store.get(rotating.id, ["default"]).export_outdated


def test_import_of_an_incomplete_backup_changes_nothing(run: Run, redis: Redis, store: Credentials, tmp_path: Path):
    run("credentials", "list")  # stamps the data with the farm's version
    before = dump_redis(redis)
    for content in ({"credentials": []}, {"credentials": [{"id": "x"}], "records": {}, "quotas": {}, "farm_toml": ""}):
        (tmp_path / "backup").write_bytes(encrypt(json.dumps(content).encode(), PASSPHRASE))
        result = run("import", "backup", "--passphrase-file", "-", input=PASSPHRASE)
        assert (result.exit_code, "incomplete" in result.stderr) == (1, True)
    assert dump_redis(redis) == before


def test_import_restores_states_at_once_and_never_an_older_token(
    run: Run, redis: Redis, store: Credentials, tmp_path: Path
):
    assert run("export", "backup", "--passphrase-file", "-", input=PASSPHRASE).exit_code == 0
    rotated, *others = store.list(["default"])
    sealed = Sealer.load(redis).seal("rotated since", rotated.id)
    redis.hset(keys.credential(rotated.id), mapping={"sealed": sealed, "fingerprint": fingerprint("rotated since")})
    redis.hdel(keys.fingerprints("default"), fingerprint("one"), fingerprint("two"), fingerprint("three"))
    redis.hdel(keys.fingerprints("default"), fingerprint("four"))
    for record in others:
        store.remove("default", record.id)
    result = run("import", "backup", "--passphrase-file", "-", input=PASSPHRASE)
    assert (result.exit_code, "1 credentials known already" in result.stdout) == (0, True), result.stderr
    assert redis.hget(keys.credential(rotated.id), "sealed") == sealed
    records = {record.id: record for record in store.list(["default"])}
    assert {id_: (record.state, record.token_origin) for id_, record in records.items()} == {
        record.id: (record.state if record.state != "cooling" else "active", "https://login.example")
        for record in (rotated, *others)
    }


def test_import_brings_the_accounts_and_keeps_the_credential_that_an_account_has_here(
    run: Run, redis: Redis, store: Credentials, tmp_path: Path
):
    records = store.list(["default"])
    for record in records[:2]:
        account = {"identity": f"digest of {record.id}", "issuer": "https://login.example", "subject": record.id}
        redis.hset(keys.credential(record.id), mapping={**account, "account": "someone"})
    assert run("export", "backup", "--passphrase-file", "-", input=PASSPHRASE).exit_code == 0
    for record in records:
        store.remove("default", record.id)
    own_id, _ = store.add("default", "a newer grant of the same account")
    redis.hset(keys.accounts("default"), f"digest of {records[0].id}", own_id)

    result = run("import", "backup", "--passphrase-file", "-", input=PASSPHRASE)
    assert "3 credentials added" in result.stdout, result.stderr
    assert "1 credentials known already" in result.stdout
    imported = {record.id: record for record in store.list(["default"])}
    assert set(imported) == {own_id, *(record.id for record in records[1:])}
    brought = imported[records[1].id]
    assert (brought.issuer, brought.subject, brought.account) == ("https://login.example", records[1].id, "someone")
    assert redis.hget(keys.accounts("default"), f"digest of {records[1].id}") == records[1].id.encode()


def test_import_brings_limits_of_accounts(run: Run, redis: Redis, store: Credentials, tmp_path: Path):
    first, *others = store.list(["default"])
    store.set_limits(first.id, {"account_rpm": 3, "account_gap": 0.5})
    (exported, *_) = json.loads(run("credentials", "export", "--json").stdout)
    assert (exported["id"], exported["account_rpm"], exported["account_gap"]) == (first.id, 3, 0.5)
    assert run("export", "backup", "--passphrase-file", "-", input=PASSPHRASE).exit_code == 0
    store.remove("default", first.id)
    store.set_limits(others[0].id, {"account_rpd": 9})
    assert run("import", "backup", "--passphrase-file", "-", input=PASSPHRASE).exit_code == 0
    assert store.get(first.id, ["default"]).own_limits == OwnLimits(account_rpm=3, account_gap=0.5)
    assert store.get(others[0].id, ["default"]).own_limits == OwnLimits(account_rpd=9)


def test_secrets_that_were_replaced_go_along_and_come_back_as_no_key_of_their_own(
    run: Run, redis: Redis, tmp_path: Path
):
    api_keys = ApiKeys(redis)
    first, key = api_keys.create("mine")
    assert run("export", "before", "--passphrase-file", "-", input=PASSPHRASE).exit_code == 0
    second, _ = api_keys.rotate(key.id, 3600)
    assert run("export", "after", "--passphrase-file", "-", input=PASSPHRASE).exit_code == 0
    assert run("import", "before", "--passphrase-file", "-", input=PASSPHRASE).exit_code == 0
    assert [each.hint for each in api_keys.list()] == [api_keys.get(key.id).hint]
    redis.flushall()
    assert run("import", "after", "--passphrase-file", "-", input=PASSPHRASE).exit_code == 0
    found = [api_keys.find(hash_secret(secret)) for secret in (first, second)]
    assert [(each.id, each.is_expired) for each in found if each] == [(key.id, False), (key.id, False)]
