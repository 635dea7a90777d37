"""API keys are created, changed and revoked."""

import json

import pytest
from redis import Redis

from shared import keys
from shared.api_keys.store import ApiKeys, hash_secret
from shared.errors import Conflict, FarmError, NotFound
from tests.internals import ContendedApiKeys
from tests.redis_dump import dump_redis


def test_key_is_shown_once_and_stored_as_a_hash(redis: Redis):
    secret, key = ApiKeys(redis).create("mine")
    assert secret.startswith("sk-")
    assert secret not in dump_redis(redis)
    assert ApiKeys(redis).find(hash_secret(secret)) == key
    assert [key.name for key in ApiKeys(redis).list()] == ["mine"]


def test_given_key_is_created_once(redis: Redis):
    store = ApiKeys(redis)
    assert store.create_if_missing("sk-my-own-long-key", "x") == store.create_if_missing("sk-my-own-long-key", "y")
    assert store.create_if_missing("sk-short", "x").enabled
    with pytest.raises(FarmError, match="printable"):
        store.create_if_missing("sk-with a space", "x")


def test_key_is_changed_by_field_and_by_version(redis: Redis):
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


def test_concurrent_changes_of_a_key_are_both_kept(redis: Redis):
    _, key = ApiKeys(redis).create("mine")
    store = ContendedApiKeys(redis, {"rpm": 7})
    store.update(key.id, {"note": "changed"})
    changed = store.get(key.id)
    assert (changed.rpm, changed.note, changed.version) == (7, "changed", 3)


def test_revoked_key_stays_revoked(redis: Redis):
    store = ApiKeys(redis)
    _, key = store.create("mine")
    revoked = store.revoke(key.id)
    assert store.revoke(key.id) == revoked
    with pytest.raises(Conflict, match="revoked"):
        store.update(key.id, {"enabled": True})


def test_update_keeps_the_fields_of_a_newer_version(redis: Redis):
    store = ApiKeys(redis)
    secret, key = store.create("a")
    stored = json.loads(redis.hget(keys.API_KEYS, hash_secret(secret)))
    redis.hset(keys.API_KEYS, hash_secret(secret), json.dumps({**stored, "regions": ["eu"]}))
    assert store.update(key.id, {"rpm": 5}).rpm == 5
    store.revoke(key.id)
    assert json.loads(redis.hget(keys.API_KEYS, hash_secret(secret)))["regions"] == ["eu"]


def test_a_key_that_this_version_cannot_read_hides_no_other(redis: Redis):
    store = ApiKeys(redis)
    secret, _ = store.create("a")
    store.create("b")
    stored = json.loads(redis.hget(keys.API_KEYS, hash_secret(secret)))
    redis.hset(keys.API_KEYS, hash_secret(secret), json.dumps({**stored, "band": "overnight"}))
    assert [record.name for record in store.list()] == ["b"]
    assert store.find(hash_secret(secret)) is None
