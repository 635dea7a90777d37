"""Commands that change states, and what `status` shows."""

import json
import subprocess
import sys
import time
from pathlib import Path

import gevent
import pytest
from click import Context
from redis import Redis

from launcher.__main__ import farm
from launcher.processes.data_dir import DataDir, FarmRecord
from shared import keys
from shared.credentials.store import Credentials
from shared.credentials.token_origin import TokenOrigins
from shared.observability.audit_log import AuditLog
from shared.observability.pool_status import read_pool_statuses
from shared.settings.schema import PoolSettings
from tests.environment import ROOT
from tests.integration.launcher.conftest import Run
from tests.redis_dump import dump_redis


@pytest.fixture
def ids(redis: Redis, run: Run) -> tuple[str, ...]:
    """Three credentials: one dead for a day, one dead just now, one disabled."""
    store = Credentials(redis)
    ids = store.import_lines("default", ["one", "two", "three"], token_origin="https://login.example").new_ids
    for credential_id in ids[:2]:
        store.set_state("default", credential_id, "dead", "invalid_grant")
    store.set_state("default", ids[2], "disabled", "by a person")
    redis.hset(keys.credential(ids[0]), "state_since", time.time() - 86_400)
    return ids


def states(redis: Redis) -> list[str]:
    return [record.state for record in Credentials(redis).list(["default"])]


def test_all_that_died_since_a_time_are_enabled_at_once(run: Run, redis: Redis, ids: tuple[str, ...]):
    assert run("credentials", "enable", "--state", "dead", "--since", "1h", "--pool", "other").exit_code == 0
    assert run("credentials", "enable", "--state", "dead", "--since", "1h").stdout == f"{ids[1]} active\n"
    assert sorted(states(redis)) == ["active", "dead", "disabled"]
    assert run("credentials", "enable", "--state", "dead").stdout == f"{ids[0]} active\n"
    assert run("credentials", "enable", ids[2]).stdout == f"{ids[2]} active\n"
    assert states(redis) == ["active"] * 3


def test_drain_disables_and_waits_for_the_running_request(run: Run, redis: Redis, ids: tuple[str, ...]):
    for credential_id in ids:
        Credentials(redis).enable("default", credential_id)
    redis.set(keys.lease(ids[0]), "process:1")
    busy = run("credentials", "drain", ids[0], ids[1], "--timeout", "0")
    assert (busy.exit_code, busy.stdout) == (1, f"{ids[1]} drained and disabled\n")
    assert sorted(states(redis)) == ["active", "disabled", "disabled"]
    release = gevent.spawn_later(0.7, redis.delete, keys.lease(ids[0]))
    drained = run("credentials", "drain", ids[0])
    assert (drained.exit_code, drained.stdout, release.ready()) == (0, f"{ids[0]} drained and disabled\n", True)


@pytest.mark.parametrize("arguments", [(), ("some-id", "--state", "dead"), ("no-such-id",)])
def test_enable_without_a_clear_selection_changes_nothing(
    run: Run, redis: Redis, ids: tuple[str, ...], arguments: tuple[str, ...]
):
    assert run("credentials", "enable", *arguments).exit_code == 1
    assert sorted(states(redis)) == ["dead", "dead", "disabled"]


def test_foreign_credentials_are_adopted_not_enabled(run: Run, redis: Redis, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FARM_TOKEN_URL", "https://login.other.example/token")
    here = PoolSettings(token_url="https://login.other.example/token")
    (credential_id,) = Credentials(redis).import_lines("default", ["t"], token_origin="https://login.example").new_ids
    TokenOrigins(redis).reconcile([here])
    refused = run("credentials", "enable", credential_id)
    assert (refused.exit_code, "credentials adopt" in refused.stderr) == (1, True)
    assert run("credentials", "adopt").exit_code == 1
    assert run("credentials", "adopt", "--all").stdout == f"{credential_id} adopted\n"
    assert states(redis) == ["active"]


def test_status_masks_the_password_of_redis(run: Run, tmp_path: Path):
    data = DataDir(str(tmp_path / "data"))
    assert data.lock()
    data.write_record(FarmRecord(1, "http://127.0.0.1:1", "redis://:hush@redis.example:6379/0", 1.0))
    for arguments in (("status",), ("status", "--json")):
        result = run(*arguments)
        assert (result.exit_code, "redis.example:6379" in result.stdout, "hush" in result.stdout) == (0, True, False)
    data.unlock()


def test_rq_runs_on_the_farms_redis(run: Run):
    """In a process of its own, because the command replaces the one that it runs in."""
    command = [sys.executable, "-m", "launcher", "rq", "info"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_an_import_can_be_tried_and_says_what_is_wrong_with_each_invalid_line(run: Run, redis: Redis, tmp_path: Path):
    (tmp_path / "tokens.txt").write_text("user----hunter2----token-one\n\nPASSWORD=hunter2\ntoken-one\n")
    preview = run("credentials", "import", "tokens.txt", "--dry-run")
    assert preview.stderr == "line 3: invalid: there is no refresh token in it\n"
    assert preview.stdout.splitlines() == [
        "line 1: would be added",
        "line 4: is here already",
        "1 added, 1 duplicates, 1 blanks, 1 invalid; nothing was changed",
    ]
    assert Credentials(redis).list(["default"]) == []
    result = json.loads(run("credentials", "import", "tokens.txt", "--json").stdout)
    assert (len(result["ids"]), result["invalid_lines"][0]["line"], result["dry_run"]) == (1, 3, False)
    assert "hunter2" not in dump_redis(redis)


def test_show_says_why_a_credential_is_out_of_service_and_what_happens_next(run: Run, redis: Redis):
    store = Credentials(redis)
    credential_id, _ = store.add("default", "token-one")
    store.set_state("default", credential_id, "cooling", "rate_limited", time.time() + 60)
    store.set_state("default", credential_id, "dead", "invalid_grant: token_revoked")
    shown = json.loads(run("credentials", "show", credential_id, "--json").stdout)
    assert shown["explanation"]["code"] == "token_revoked"
    assert [change["state"] for change in shown["history"]] == ["dead", "cooling"]
    lines = run("credentials", "show", credential_id).stdout.splitlines()
    assert f"why: {shown['explanation']['rule']}" in lines
    assert f"next: {shown['explanation']['next']}" in lines
    assert any(line.startswith("was: ") and line.endswith("cooling rate_limited") for line in lines)
    assert shown["last_hour"]["success_rate"] is None
    (row,) = json.loads(run("credentials", "list", "--json").stdout)
    assert row == {name: value for name, value in shown.items() if name != "history"}


def test_accounts_get_limits_of_their_own_and_give_them_back(run: Run, redis: Redis, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FARM_ACCOUNT_RPD", "100")
    first, second = Credentials(redis).import_lines("default", ["one", "two"]).new_ids
    assert run("credentials", "limit", first, second, "--rpm", "3", "--gap", "0.5").exit_code == 0
    assert run("credentials", "limit", second, "--rpd", "0", "--gap", "pool").stdout == (
        f"{second} account_rpm 3, account_rpd off\n"
    )
    assert run("credentials", "limit", first, "--default", "--tpm", "900").stdout == f"{first} account_tpm 900\n"
    (changed,) = json.loads(run("credentials", "limit", first, "--default", "--rpm", "7", "--json").stdout)
    assert changed == {"id": first, "pool": "default", "limits": {"account_rpm": 7}}
    lines = run("credentials", "show", first).stdout.splitlines()
    assert "limit: account_rpm 7 left of 7, the account's own" in lines
    assert "limit: account_rpd 100 left of 100" in lines
    assert "account_rpm: 7" in lines
    assert not [line for line in lines if line.startswith("account_tpm")]
    assert run("credentials", "limit", first, "--default").stdout == f"{first} has the limits of its pool\n"
    for wrong in ((), ("--rpm", "-1"), ("--rpm", "many"), ("--gap", "nan")):
        assert run("credentials", "limit", second, *wrong).exit_code != 0
    assert run("credentials", "limit", "nope", "--rpm", "1").exit_code == 1


def test_show_lists_the_models_that_an_account_rests_for(run: Run, redis: Redis):
    credential_id, _ = Credentials(redis).add("default", "token")
    redis.hset(keys.resting_models(credential_id), "gpt-limited", time.time() + 100)
    assert "gpt-limited" in json.loads(run("credentials", "show", credential_id, "--json").stdout)["resting_models"]
    assert "limited for model gpt-limited until " in run("credentials", "show", credential_id).stdout


def test_tokens_are_imported_and_keys_created_and_revoked(run: Run, tmp_path: Path):
    (tmp_path / "tokens").write_text("one\n\n  two \none\nnot a token\n")
    report = run("credentials", "import", "tokens")
    assert report.stdout == "2 added, 1 duplicates, 1 blanks, 1 invalid\n"
    assert report.stderr == "line 5: invalid: it has white space in it\n"
    missing = run("credentials", "import", str(tmp_path / "nope"))
    assert (missing.exit_code, missing.stderr.count("\n")) == (1, 1)
    assert run("credentials", "show", "nope").exit_code == 1
    assert run("keys", "nonsense").exit_code == 2
    secret = run("keys", "create", "--name", "mine").stdout.strip()
    assert secret.startswith("sk-")
    listed = run("keys", "list").stdout
    assert ("mine" in listed, secret in listed) == (True, False)
    key_id = listed.splitlines()[-1].split()[0]
    rotated = json.loads(run("keys", "rotate", key_id, "--grace-hours", "2", "--json").stdout)
    assert (rotated["id"], rotated["key"] != secret) == (key_id, True)
    assert rotated["superseded_until"] == pytest.approx(rotated["rotated_at"] + 7200)
    assert run("keys", "end-former", key_id).exit_code == 0
    assert run("keys", "revoke", key_id).exit_code == 0
    assert "enabled: False" in run("keys", "show", key_id).stdout


def test_settings_are_shown_without_secrets(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FARM_CLIENT_SECRET", "hush")
    monkeypatch.setenv("FARM_MODELS", "a,b")
    checked = run("config", "check").stdout
    assert ("pools.default.client_secret = set" in checked, "hush" in checked) == (True, False)
    assert "FARM_MAX_QUEUE=10000" in run("config", "template").stdout
    assert "a, b" in run("pools", "list").stdout
    assert '"models"' in run("pools", "show", "default", "--json").stdout
    assert run("pools", "show", "nope").exit_code == 1


def test_commands_say_that_the_farm_is_not_running(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("REDIS_URL")
    result = run("credentials", "list")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)


def test_every_command_has_a_help_text(run: Run):
    names = farm.list_commands(Context(farm))
    texts = {name: run(name, "--help") for name in names if name not in ("bench", "rq")}
    assert [name for name, result in texts.items() if result.exit_code or "Usage: " not in result.stdout] == []
    assert len(texts) >= 10


def test_pool_is_paused_and_resumed(run: Run, redis: Redis):
    paused = run("pools", "pause", "default")
    assert (paused.exit_code, "its requests wait" in paused.stdout) == (0, True)
    assert read_pool_statuses(redis, ["default"])[0].warnings == ["an operator has paused it"]
    assert run("pools", "resume", "default").stdout == "default resumed\n"
    assert run("pools", "resume", "default").stdout == "default is not paused\n"
    assert run("pools", "pause", "nowhere").exit_code == 1
    assert [entry.action for entry in AuditLog(redis).read_newest_first()] == ["pool.resume", "pool.pause"]


def test_credentials_are_listed_in_a_table(run: Run, ids: tuple[str, ...]):
    heading, *rows = run("credentials", "list").stdout.splitlines()
    assert ("ID" in heading.upper(), len(rows)) == (True, len(ids))
    assert all(any(row.startswith(id_) for row in rows) for id_ in ids)
