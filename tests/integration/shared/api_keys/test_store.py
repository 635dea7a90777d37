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


def test_rotated_key_has_a_new_secret_and_the_former_one_expires(redis: Redis):
    store = ApiKeys(redis)
    former, key = store.create("mine", rpm=7)
    secret, rotated = store.rotate(key.id, 3600)
    assert (rotated.id, rotated.rpm, rotated.version) == (key.id, 7, 2)
    assert rotated.hint != key.hint
    assert store.find(hash_secret(secret)) == store.get(key.id) == rotated
    by_former = store.find(hash_secret(former))
    assert by_former is not None
    assert (by_former.id, by_former.expires_at, by_former.is_expired) == (key.id, rotated.superseded_until, False)
    assert by_former.expires_at == pytest.approx(rotated.rotated_at + 3600)
    assert [each.id for each in store.list()] == [key.id]
    assert former not in dump_redis(redis)
    store.update(key.id, {"rpm": 9})
    assert store.find(hash_secret(former)).rpm == 9  # type: ignore[union-attr]
    store.revoke(key.id)
    assert store.find(hash_secret(former)).enabled is False  # type: ignore[union-attr]
    with pytest.raises(Conflict, match="revoked"):
        store.rotate(key.id, 0)


def test_former_secrets_that_were_ended_stay_so(redis: Redis):
    store = ApiKeys(redis)
    first, key = store.create("mine")
    second, _ = store.rotate(key.id, 3600)
    third, _ = store.rotate(key.id, 3600)
    assert [is_open(store, secret) for secret in (first, second, third)] == [True, True, True]
    store.end_superseded(key.id)
    assert [is_open(store, secret) for secret in (first, second, third)] == [False, False, True]
    fourth, _ = store.rotate(key.id, 3600)
    assert [is_open(store, secret) for secret in (first, second, third, fourth)] == [False, False, True, True]
    fifth, _ = store.rotate(key.id, 0)
    assert [is_open(store, secret) for secret in (third, fourth, fifth)] == [False, False, True]


def is_open(store: ApiKeys, secret: str) -> bool:
    key = store.find(hash_secret(secret))
    return key is not None and not key.is_expired


def test_rotation_ends_no_sooner_than_the_key_itself(redis: Redis):
    store = ApiKeys(redis)
    former, key = store.create("mine", expires_at=1000.0)
    store.rotate(key.id, 3600)
    assert store.find(hash_secret(former)).expires_at == 1000  # type: ignore[union-attr]


def test_replaced_secret_from_the_settings_does_not_become_a_key_again(redis: Redis):
    store = ApiKeys(redis)
    key = store.create_if_missing("sk-my-own-long-key", "FARM_API_KEY")
    store.rotate(key.id, 0)
    assert store.create_if_missing("sk-my-own-long-key", "FARM_API_KEY").is_expired
    assert [each.id for each in store.list()] == [key.id]


def test_rotation_that_another_process_has_forestalled_is_tried_again(redis: Redis):
    store = ApiKeys(redis)
    _, key = store.create("mine")
    contended = ContendedApiKeys(redis, {"rpm": 5})
    secret, rotated = contended.rotate(key.id, 60)
    assert (rotated.rpm, store.find(hash_secret(secret))) == (5, rotated)
