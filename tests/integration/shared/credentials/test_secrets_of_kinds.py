"""A secret of several parts belongs to a client or service account, of which a pool has one credential."""

import json

import pytest
from redis import Redis

from launcher.token_export import export_tokens
from shared import keys
from shared.credentials.importing.entries import read_entries
from shared.credentials.importing.report import ImportReport
from shared.credentials.kinds import KINDS, encode_client
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from simulator.accounts import Accounts
from simulator.token_endpoint.credential_kinds import list_secrets

CLIENT = "client_credentials"


def import_lines(redis: Redis, *lines: str, kind: str = CLIENT) -> ImportReport:
    return Credentials(redis).import_entries("default", read_entries(lines, kind), kind=kind)


def stored_secrets(redis: Redis, unsealer: Unsealer) -> list[str]:
    return sorted(credential["refresh_token"] for credential in export_tokens(redis, unsealer, ["default"]))


def test_client_that_comes_with_a_new_secret_keeps_its_credential(redis: Redis, unsealer: Unsealer):
    (credential_id,) = import_lines(redis, "app:old").new_ids
    report = import_lines(redis, "app:new", "other:x")
    assert report.to_counts() == {"added": 1, "duplicates": 0, "replaced": 1, "blanks": 0, "invalid": 0}
    assert report.lines[0].id == credential_id
    assert stored_secrets(redis, unsealer) == [encode_client("app", "new"), encode_client("other", "x")]


def test_file_with_a_former_secret_changes_nothing(redis: Redis, unsealer: Unsealer):
    for secret in ("oldest", "old", "new"):
        import_lines(redis, f"app:{secret}")
    lines = import_lines(redis, "app:oldest", "app:old", "app:new").lines
    assert [line.outcome for line in lines] == ["duplicate", "duplicate", "duplicate"]
    assert stored_secrets(redis, unsealer) == [encode_client("app", "new")]


@pytest.mark.parametrize(
    ("state", "is_refused", "after"),
    [
        ("dead", False, "active"),
        ("cooling", True, "active"),
        ("cooling", False, "cooling"),
        ("disabled", True, "disabled"),
    ],
)
def test_new_secret_ends_what_the_former_one_has_led_to(
    redis: Redis, unsealer: Unsealer, state, is_refused: bool, after: str
):
    store = Credentials(redis)
    (credential_id,) = import_lines(redis, "app:old").new_ids
    store.set_state("default", credential_id, state, "a reason", 4e9)
    if is_refused:
        redis.hset(keys.credential(credential_id), "refusals", "{}")
    import_lines(redis, "app:new")
    assert store.get_states("default") == {credential_id: after}
    assert not redis.hexists(keys.credential(credential_id), "refusals")


def test_removed_client_may_come_again_with_any_of_its_secrets(redis: Redis, unsealer: Unsealer):
    (credential_id,) = import_lines(redis, "app:oldest").new_ids
    for secret in ("old", "new"):
        import_lines(redis, f"app:{secret}")
    assert Credentials(redis).remove("default", credential_id)
    assert import_lines(redis, "app:oldest").count("added") == 1
    assert import_lines(redis, "app:old").count("replaced") == 1


def test_preview_tells_what_would_be_replaced(redis: Redis, unsealer: Unsealer):
    import_lines(redis, "app:old")
    lines = ("app:old", "app:new", "b:1", "b:2")
    report = Credentials(redis).preview_import("default", read_entries(lines, CLIENT), CLIENT)
    assert [line.outcome for line in report.lines] == ["duplicate", "replaced", "added", "replaced"]
    assert stored_secrets(redis, unsealer) == [encode_client("app", "old")]


def test_service_account_with_a_new_key_keeps_its_credential(redis: Redis, unsealer: Unsealer):
    (first, second) = (json.loads(secret) for secret in list_secrets(Accounts(2), "service_account"))
    assert import_lines(redis, json.dumps(first), kind="service_account").count("added") == 1
    key = next(name for name in first if "PRIVATE KEY" in str(first[name]))
    report = import_lines(redis, json.dumps(first | {key: second[key]}), kind="service_account")
    assert report.count("replaced") == 1 or first[key] == second[key]
    assert import_lines(redis, json.dumps(second), kind="service_account").count("added") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_export_of_every_kind_is_an_import(redis: Redis, unsealer: Unsealer, kind: str):
    import_lines(redis, *list_secrets(Accounts(2), kind), kind=kind)
    exported = export_tokens(redis, unsealer, ["default"])
    secrets = stored_secrets(redis, unsealer)
    assert len(secrets) == 2
    lines = [credential["refresh_token"] for credential in exported]
    for text in (lines, json.dumps(exported, indent=2).splitlines()):
        assert sorted(entry.secret for entry in read_entries(text, kind)) == secrets
        assert import_lines(redis, *text, kind=kind).count("duplicate") == 2
    for credential in exported:
        Credentials(redis).remove("default", credential["id"])
        assert Credentials(redis).restore(credential)
    assert stored_secrets(redis, unsealer) == secrets
    assert {record.kind for record in Credentials(redis).list(["default"])} == {kind}
