"""What an account has left of its limits, and limits of its own."""

import time

import pytest
from redis import Redis

from shared import keys
from shared.credentials import private
from shared.credentials.private import PrivateCredentials
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.pacing.account_limits import NO_OWN_LIMITS, AccountLimits, OwnLimits
from shared.pacing.limit_use import LimitUse, read_limit_use
from shared.pacing.scripts import CountRequest
from tests.redis_dump import dump_redis

LIMITS = AccountLimits(rpm=2, tpm=1000, rpd=50, gap=2.5)


def read(redis: Redis, own: OwnLimits = NO_OWN_LIMITS) -> dict[str, LimitUse]:
    (unlimited, uses) = read_limit_use(redis, [("other", AccountLimits(), NO_OWN_LIMITS), ("c1", LIMITS, own)])
    assert unlimited == ()
    return {use.name: use for use in uses}


def test_unused_account_has_all_of_its_limits(redis: Redis):
    assert read(redis) == {
        "account_rpm": LimitUse("account_rpm", 2, False, 2),
        "account_tpm": LimitUse("account_tpm", 1000, False, 1000),
        "account_rpd": LimitUse("account_rpd", 50, False, 50),
        "account_gap": LimitUse("account_gap", 2.5, False, None),
    }


def test_reading_tells_what_is_left_and_until_when_and_changes_nothing(redis: Redis):
    limits = AccountLimits(rpm=2, rpd=50)
    for _ in range(2):
        assert CountRequest(redis)(keys.pace("c1"), limits.encoded) is None
    before = dump_redis(redis)
    uses = read(redis, OwnLimits(account_tpm=7))
    assert dump_redis(redis) == before
    minute, day = uses["account_rpm"], uses["account_rpd"]
    assert (minute.remaining, day.remaining, day.next_at) == (0, 48, 0)
    assert 50 < minute.next_at - time.time() < 62
    assert minute.next_at <= minute.reset_at < time.time() + 62
    assert 86_000 < day.reset_at - time.time() < 86_700
    assert uses["account_tpm"] == LimitUse("account_tpm", 7, True, 7)


def test_gap_tells_when_it_is_over(redis: Redis):
    assert CountRequest(redis)(keys.pace("c1"), AccountLimits(gap=500).encoded) is None
    (use,) = read_limit_use(redis, [("c1", AccountLimits(), OwnLimits(account_gap=500))])[0]
    assert (use.limit, use.is_own, use.remaining) == (500, True, None)
    assert 450 < use.next_at - time.time() < 501


def test_limits_of_its_own_replace_the_pools_one_by_one():
    own = OwnLimits.read({"account_rpm": 0, "account_gap": 1.5, "account_tpm": "7", "account_rpd": True, "label": "x"})
    assert own == OwnLimits(account_rpm=0, account_gap=1.5)
    assert own.replace_in(LIMITS) == AccountLimits(rpm=0, tpm=1000, rpd=50, gap=1.5)
    assert OwnLimits.decode(own.encode()) == own
    assert (NO_OWN_LIMITS.encode(), OwnLimits.decode("")) == ("", NO_OWN_LIMITS)


@pytest.mark.parametrize("is_private", [False, True], ids=["pool's", "private"])
def test_removed_credential_leaves_neither_pace_nor_limits(redis: Redis, unsealer: Unsealer, is_private: bool):
    store = Credentials(redis)
    pool = PrivateCredentials(redis).add("default", "token", 1) if is_private else "default"
    credential_id = pool.partition("~")[2] or store.add(pool, "token")[0]
    assert store.set_limits(credential_id, {"account_rpm": 3, "account_gap": 0.5})
    limits = AccountLimits(rpm=9, tpm=9, rpd=9, gap=9).encoded
    assert CountRequest(redis)(keys.pace(credential_id), limits) is None
    redis.rpush(f"{keys.pace(credential_id)}:tpm", "0 0")
    assert all(redis.exists(key) for key in keys.pace_keys(credential_id))
    record = store.get(credential_id, [pool])
    assert (record.account_rpm, record.account_tpm, record.account_gap) == (3, None, 0.5)

    assert private.remove_credential(redis, pool, credential_id, "command line")
    redis.delete(keys.removed(credential_id))
    assert credential_id not in dump_redis(redis)
    assert not store.set_limits(credential_id, {"account_rpm": 3})
    assert not redis.exists(keys.CREDENTIAL_LIMITS)


def test_idle_private_credential_is_forgotten_with_its_limits(redis: Redis, unsealer: Unsealer):
    credentials = PrivateCredentials(redis)
    credential_id = credentials.add("default", "token", 1).partition("~")[2]
    Credentials(redis).set_limits(credential_id, {"account_rpd": 3})
    redis.zadd(keys.PRIVATE_POOLS, {f"default~{credential_id}": 1})
    assert credentials.forget_idle(lambda _: 10) == [f"default~{credential_id}"]
    assert not redis.exists(keys.CREDENTIAL_LIMITS)
