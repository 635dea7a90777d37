import pytest
from redis import Redis

from shared.api_keys.admin_tokens import AdminTokens
from shared.api_keys.store import ApiKeys, hash_secret
from shared.errors import ApiError, Conflict, FarmError, NotFound
from tests.integration.shared.credentials.test_store import everything
from web.access.authenticator import Authenticator
from web.access.private_callers import PrivateCallers

HERE = "192.0.2.1"


def authenticator(store: ApiKeys) -> Authenticator:
    """One that takes no refresh tokens."""
    return Authenticator(store, PrivateCallers(store._redis, ()))


def test_a_key_is_shown_once_and_kept_as_a_hash(redis: Redis):
    secret, key = ApiKeys(redis).create("mine")
    assert secret.startswith("sk-")
    assert secret not in everything(redis)
    assert ApiKeys(redis).find(hash_secret(secret)) == key
    assert [one.name for one in ApiKeys(redis).list()] == ["mine"]


def test_a_given_key_is_made_once(redis: Redis):
    store = ApiKeys(redis)
    assert store.create_if_missing("sk-my-own-long-key", "x") == store.create_if_missing("sk-my-own-long-key", "y")
    assert store.create_if_missing("sk-short", "x").enabled
    with pytest.raises(FarmError, match="printable"):
        store.create_if_missing("sk-with a space", "x")


def test_a_revoked_key_is_refused(redis: Redis):
    store = ApiKeys(redis)
    secret, key = store.create("mine")
    assert authenticator(store).authenticate(f"Bearer {secret}", HERE).id == key.id
    assert not store.revoke(key.id).enabled
    with pytest.raises(ApiError) as caught:
        authenticator(store).authenticate(f"Bearer {secret}", HERE)
    assert caught.value.status == 401
    with pytest.raises(NotFound):
        store.revoke("nope")


def test_a_key_is_changed_by_field_and_by_version(redis: Redis):
    store = ApiKeys(redis)
    secret, key = store.create("mine", rpm=60, models=["a*"])
    changed = store.update(key.id, {"rpm": "90", "networks": ["10.0.0.7/8"]})
    assert (changed.rpm, changed.models, changed.networks, changed.version) == (90, ("a*",), ("10.0.0.0/8",), 2)
    assert store.find(hash_secret(secret)) == store.get(key.id) == changed
    with pytest.raises(Conflict, match="version 2"):
        store.update(key.id, {"rpm": 1}, version=1)
    assert store.update(key.id, {"rpm": 1}, version=2).rpm == 1
    with pytest.raises(NotFound):
        store.update("nope", {})


def test_two_changes_at_once_are_both_kept(redis: Redis):
    store = ApiKeys(redis)
    _, key = store.create("mine")
    read = store._get_with_digest
    raced: list[str] = []

    def raced_once(key_id: str):
        found = read(key_id)
        if not raced:
            raced.append(key_id)
            ApiKeys(redis).update(key_id, {"rpm": 7})
        return found

    store._get_with_digest = raced_once  # type: ignore[method-assign]
    store.update(key.id, {"note": "changed"})
    found = store.get(key.id)
    assert (found.rpm, found.note, found.version) == (7, "changed", 3)


def test_what_was_revoked_stays_so(redis: Redis):
    store = ApiKeys(redis)
    _, key = store.create("mine")
    revoked = store.revoke(key.id)
    assert store.revoke(key.id) == revoked
    with pytest.raises(Conflict, match="revoked"):
        store.update(key.id, {"enabled": True})


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"enabled": False}, 401, "invalid_api_key"),
        ({"expires_at": 1.0}, 401, "api_key_expired"),
        ({"networks": ["198.51.100.0/24", "2001:db8::/32"]}, 403, "ip_not_authorized"),
    ],
)
def test_a_key_that_may_not_be_used_is_refused(redis: Redis, fields: dict, status: int, code: str):
    store = ApiKeys(redis)
    secret, _ = store.create("mine", **fields)
    with pytest.raises(ApiError) as caught:
        authenticator(store).authenticate(f"Bearer {secret}", HERE)
    assert (caught.value.status, caught.value.code) == (status, code)


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic abc", "Bearer sk-unknown"])
def test_without_a_right_key_nobody_is_let_in(redis: Redis, header: str):
    with pytest.raises(ApiError) as caught:
        authenticator(ApiKeys(redis)).authenticate(header, HERE)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")


def test_a_key_is_looked_up_once_for_many_requests(redis: Redis):
    store = ApiKeys(redis)
    secret, _ = store.create("mine")
    door = authenticator(store)
    door.authenticate(f"Bearer {secret}", HERE)
    before = redis.info("commandstats")["cmdstat_hget"]["calls"]
    for _ in range(50):
        door.authenticate(f"Bearer {secret}", HERE)
    assert redis.info("commandstats")["cmdstat_hget"]["calls"] == before


def test_the_admin_token_is_made_once_or_taken_as_given(redis: Redis):
    tokens = AdminTokens(redis)
    made = tokens.ensure_first("")
    assert made is not None
    assert tokens.find(made) is not None
    assert tokens.ensure_first("") is None
    assert tokens.ensure_first("my own token") is None
    assert tokens.find("my own token") is not None
    assert tokens.find(made) is None


def test_admin_tokens_are_several_and_end_one_by_one(redis: Redis):
    tokens = AdminTokens(redis)
    tokens.ensure_first("the first of them")
    secret, record = tokens.create("console", "viewer")
    assert (record.role, tokens.find(secret)) == ("viewer", record)
    assert [one.id for one in tokens.list()] == ["first", record.id]
    with pytest.raises(Conflict):
        tokens.revoke("first")
    tokens.revoke(record.id)
    assert tokens.find(secret) is None
    with pytest.raises(NotFound):
        tokens.get(record.id)
    assert secret not in repr(redis.hgetall("farm:admin-tokens"))
