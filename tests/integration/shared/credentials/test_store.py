"""Credentials are imported, sealed, listed and moved between states."""

import time

import pytest
from redis import Redis

from shared import keys
from shared.credentials.records import STATES
from shared.credentials.store import ALLOWED_FROM, Credentials
from shared.credentials.unsealing import Unsealer
from shared.errors import FarmError, NotFound, WrongSecretKey
from shared.observability.pool_status import read_pool_statuses
from tests.own_redis import count_sends
from tests.redis_dump import dump_redis


@pytest.fixture
def store(redis: Redis, unsealer: Unsealer) -> Credentials:
    return Credentials(redis)


def test_import_trims_lines_and_counts_those_it_skips(store: Credentials):
    report = store.import_lines(
        "default", ["  one\n", "", "two", "one", "   ", "has space", "\ufefftwo", "one\u2013three"]
    )
    assert report.to_counts() == {"added": 2, "duplicates": 2, "blanks": 2, "invalid": 2}
    assert len(report.new_ids) == 2
    assert store.import_lines("default", ["one", "two"]).count("duplicate") == 2


def test_pools_keep_their_own_credentials(store: Credentials):
    assert store.add("a", "token")[1]
    assert store.add("b", "token")[1]
    assert [credential.pool for credential in store.list(["a", "b"])] == ["a", "b"]


def test_tokens_are_stored_sealed(store: Credentials, redis: Redis):
    store.add("default", "very-secret-token", "mine")
    assert "very-secret-token" not in dump_redis(redis)


def test_record_shows_everything_but_the_token(store: Credentials):
    credential_id, _ = store.add("default", "hush", "mine")
    credential = store.get(credential_id, ["default"])
    assert (credential.state, credential.label, credential.rotations) == ("active", "mine", 0)
    assert credential.added_at == pytest.approx(time.time(), abs=5)
    assert "hush" not in str(credential.to_dict().values())


def test_unknown_credential_is_not_found(store: Credentials):
    with pytest.raises(NotFound):
        store.get("nope", ["default"])
    assert not store.set_state("default", "nope", "disabled")
    assert not store.remove("default", "nope")


def test_get_all_keeps_the_given_order_and_reads_no_others(redis: Redis, store: Credentials):
    ids = store.import_lines("default", ["a", "b", "c", "d", "e"]).new_ids
    redis.config_resetstat()
    credentials = store.get_all(ids[2::-1], ["default"])
    assert [credential.id for credential in credentials] == [*ids[2::-1]]
    calls = redis.info("commandstats")
    assert calls["cmdstat_hgetall"]["calls"] == 3, "one for the rests of each"
    assert calls["cmdstat_hmget"]["calls"] == 4, "one for limits of their own"
    with pytest.raises(NotFound, match="'nope'"):
        store.get_all([*ids, "nope"], ["default"])


def test_credential_of_another_pool_is_not_found(store: Credentials):
    (credential_id,) = store.import_lines("other", ["a"]).new_ids
    with pytest.raises(NotFound):
        store.get(credential_id, ["default"])


def test_list_takes_two_round_trips_whatever_the_number_of_pools(own_redis: Redis):
    Unsealer("a secret key for tests").ensure_sealing_key(own_redis)
    store, pools = Credentials(own_redis), [f"pool-{number}" for number in range(20)]
    for pool in pools:
        store.add(pool, "a-token")
    with count_sends(own_redis) as count:
        assert len(store.list(pools)) == 20
    assert count.sends == 2


def test_removed_credential_leaves_only_who_removed_it_and_can_be_added_again(store: Credentials, redis: Redis):
    credential_id, _ = store.add("default", "token")
    assert store.remove("default", credential_id)
    assert {*redis.keys("farm:*")} == {keys.SEALING_KEY.encode(), keys.removed(credential_id).encode()}
    assert store.add("default", "token")[1]


@pytest.mark.parametrize("before", STATES)
@pytest.mark.parametrize("after", STATES)
def test_set_state_allows_only_the_listed_transitions(store: Credentials, before, after):
    credential_id, _ = store.add("default", "token")
    store.set_state("default", credential_id, before)
    assert store.set_state("default", credential_id, after) is (before in ALLOWED_FROM[after])


@pytest.mark.parametrize("before", STATES)
def test_enable_is_allowed_from_every_state(store: Credentials, before):
    credential_id, _ = store.add("default", "token")
    store.set_state("default", credential_id, before, "a reason", 99)
    assert store.enable("default", credential_id)
    credential = store.get(credential_id, ["default"])
    assert (credential.state, credential.reason, credential.until) == ("active", "", 0)


def test_token_is_not_stored_before_there_is_a_sealing_key(redis: Redis):
    with pytest.raises(FarmError, match="no sealing key"):
        Credentials(redis).add("default", "token")


def test_wrong_secret_key_is_an_error_and_changes_nothing(store: Credentials, redis: Redis):
    store.add("default", "token")
    before = dump_redis(redis)
    with pytest.raises(WrongSecretKey, match="nothing was changed"):
        Unsealer("another key").ensure_sealing_key(redis)
    assert dump_redis(redis) == before


def test_a_credential_removed_meanwhile_leaves_no_partial_record(redis: Redis, store: Credentials):
    """The operator labels it, or exports it, while another removes it."""
    credential_id, _ = store.add("default", "token")
    store.set_label("default", credential_id, "mine")
    store.record_export([credential_id])
    record = store.get(credential_id, ["default"])
    assert (record.label, record.exported_at > 0) == ("mine", True)
    redis.delete(keys.credential(credential_id))
    assert not store.set_label("default", credential_id, "gone")
    store.record_export([credential_id])
    assert not redis.exists(keys.credential(credential_id))


def test_a_state_of_a_newer_version_is_shown_as_disabled(redis: Redis, store: Credentials):
    credential_id, _ = store.add("default", "token")
    redis.hset(keys.credentials("default"), credential_id, "quarantined")
    assert store.get(credential_id, ["default"]).state == "disabled"
    (pool,) = read_pool_statuses(redis, ["default"])
    assert pool.credentials["disabled"] == 1


def test_record_lists_the_models_that_the_account_rests_for(store: Credentials, redis: Redis):
    credential_id, _ = store.add("default", "token")
    until = time.time() + 100
    redis.hset(keys.resting_models(credential_id), mapping={"A": until, "over": time.time() - 1})
    record = store.get(credential_id, ["default"])
    assert record.state == "active"
    assert record.resting_models == {"A": pytest.approx(until)}


def test_enabled_credential_rests_for_no_model_and_its_worker_is_told(store: Credentials, redis: Redis):
    credential_id, _ = store.add("default", "token")
    redis.hset(keys.resting_models(credential_id), "A", time.time() + 100)
    pubsub = redis.pubsub()
    pubsub.subscribe(f"rq:pubsub:default.{credential_id}")
    assert pubsub.get_message(timeout=10)
    assert store.enable("default", credential_id)
    assert store.get(credential_id, ["default"]).resting_models == {}
    assert b"look" in pubsub.get_message(timeout=10)["data"]


def test_removed_credential_leaves_no_rests(store: Credentials, redis: Redis):
    credential_id, _ = store.add("default", "token")
    redis.hset(keys.resting_models(credential_id), "A", time.time() + 100)
    store.remove("default", credential_id)
    assert redis.exists(keys.resting_models(credential_id)) == 0
