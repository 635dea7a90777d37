import time

import pytest
from redis import Redis

from shared import keys
from shared.credentials.records import STATES
from shared.credentials.store import ALLOWED_FROM, Credentials
from shared.credentials.unsealing import Unsealer
from shared.errors import FarmError, NotFound, WrongSecretKey


def everything(redis: Redis) -> str:
    """Every key and value of Redis."""
    readers = {"string": redis.get, "hash": redis.hgetall, "list": lambda k: redis.lrange(k, 0, -1)}
    readers |= {"set": redis.smembers, "zset": lambda k: redis.zrange(k, 0, -1)}
    readers |= {"stream": redis.xrange}
    return " ".join(f"{key!r} {readers[redis.type(key).decode()](key)!r}" for key in redis.scan_iter())


@pytest.fixture
def store(redis: Redis, unsealer: Unsealer) -> Credentials:
    return Credentials(redis)


def test_an_import_trims_and_counts_what_it_skips(store: Credentials):
    report = store.import_lines("default", ["  one\n", "", "two", "one", "   ", "has space", "\ufefftwo"])
    assert report.to_counts() == {"added": 2, "duplicates": 2, "blanks": 2, "invalid": 1}
    assert len(report.new_ids) == 2
    assert store.import_lines("default", ["one", "two"]).count("duplicate") == 2


def test_pools_keep_their_own_credentials(store: Credentials):
    assert store.add("a", "token")[1]
    assert store.add("b", "token")[1]
    assert [one.pool for one in store.list(["a", "b"])] == ["a", "b"]


def test_no_token_is_in_redis_in_the_clear(store: Credentials, redis: Redis):
    store.add("default", "very-secret-token", "mine")
    assert "very-secret-token" not in everything(redis)


def test_a_record_shows_everything_but_the_token(store: Credentials):
    credential_id, _ = store.add("default", "token", "mine")
    found = store.get(credential_id, ["default"])
    assert (found.state, found.label, found.rotations) == ("active", "mine", 0)
    assert found.added_at == pytest.approx(time.time(), abs=5)
    assert "token" not in str(found.to_dict().values())


def test_an_unknown_credential_is_not_found(store: Credentials):
    with pytest.raises(NotFound):
        store.get("nope", ["default"])
    assert not store.set_state("default", "nope", "disabled")
    assert not store.remove("default", "nope")


def test_many_are_found_in_the_order_asked_for_with_one_look(redis: Redis, store: Credentials):
    ids = store.import_lines("default", ["a", "b", "c"]).new_ids
    redis.config_resetstat()
    found = store.get_all(ids[::-1], ["default"])
    assert [one.id for one in found] == [*ids[::-1]]
    assert redis.info("commandstats")["cmdstat_hgetall"]["calls"] == 1
    with pytest.raises(NotFound, match="'nope'"):
        store.get_all([*ids, "nope"], ["default"])


def test_a_removed_credential_leaves_nothing_and_may_come_back(store: Credentials, redis: Redis):
    credential_id, _ = store.add("default", "token")
    assert store.remove("default", credential_id)
    assert redis.keys("farm:*") == [keys.SEALING_KEY.encode()]
    assert store.add("default", "token")[1]


@pytest.mark.parametrize("before", STATES)
@pytest.mark.parametrize("after", STATES)
def test_the_program_moves_a_credential_only_where_it_may(store: Credentials, before, after):
    credential_id, _ = store.add("default", "token")
    store.set_state("default", credential_id, before)
    assert store.set_state("default", credential_id, after) is (before in ALLOWED_FROM[after])


@pytest.mark.parametrize("before", STATES)
def test_a_person_may_always_enable(store: Credentials, before):
    credential_id, _ = store.add("default", "token")
    store.set_state("default", credential_id, before, "a reason", 99)
    assert store.enable("default", credential_id)
    found = store.get(credential_id, ["default"])
    assert (found.state, found.reason, found.until) == ("active", "", 0)


def test_nothing_is_stored_before_the_farm_has_a_vault(redis: Redis):
    with pytest.raises(FarmError, match="no sealing key"):
        Credentials(redis).add("default", "token")


def test_a_wrong_secret_key_is_an_error_and_changes_nothing(store: Credentials, redis: Redis):
    store.add("default", "token")
    before = everything(redis)
    with pytest.raises(WrongSecretKey, match="nothing was changed"):
        Unsealer("another key").ensure_sealing_key(redis)
    assert everything(redis) == before
