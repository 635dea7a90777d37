import time

import pytest
from redis import Redis

from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from workers.credentials import leases as leases_module
from workers.credentials.leases import Leases


@pytest.fixture
def ids(redis: Redis, unsealer: Unsealer) -> list[str]:
    return list(Credentials(redis).import_lines("default", ["t1", "t2", "t3"]).new_ids)


def test_a_credential_has_one_owner(redis: Redis, ids: list[str]):
    mine = Leases(redis, "a").claim("default", ids, 2)
    theirs = Leases(redis, "b").claim("default", ids, 9)
    assert [lease.credential_id for lease in mine] == ids[:2]
    assert [lease.credential_id for lease in theirs] == ids[2:]
    assert all(lease.is_held() for lease in mine + theirs)


def test_each_owner_has_a_higher_number_than_the_one_before(redis: Redis, ids: list[str]):
    leases = Leases(redis, "a")
    numbers = []
    for _ in range(3):
        (lease,) = leases.claim("default", ids[:1], 1)
        numbers.append(int(lease.value.rpartition(":")[2]))
        leases.release(lease)
        assert not lease.is_held()
    assert numbers == [1, 2, 3]


def test_a_removed_credential_is_not_claimed(redis: Redis, ids: list[str]):
    Credentials(redis).remove("default", ids[0])
    assert Leases(redis, "a").claim("default", ids[:1], 1) == []


def test_renewing_keeps_a_lease_and_tells_of_lost_ones(redis: Redis, ids: list[str]):
    leases = Leases(redis, "a")
    kept, taken, expired = leases.claim("default", ids, 3)
    redis.set(taken.key, "b:9")
    redis.delete(expired.key)
    redis.pexpire(kept.key, 500)
    assert leases.renew([kept, taken, expired]) == [taken, expired]
    assert redis.pttl(kept.key) > 5000
    assert (kept.is_held(), taken.is_held(), expired.is_held()) == (True, False, False)
    assert leases.renew([]) == []


def test_whoever_lost_a_lease_does_not_give_it_away(redis: Redis, ids: list[str]):
    leases = Leases(redis, "a")
    (lease,) = leases.claim("default", ids[:1], 1)
    redis.set(lease.key, "b:9")
    leases.release(lease)
    assert redis.get(lease.key) == b"b:9"


def test_an_owner_that_was_frozen_knows_by_its_own_clock(redis: Redis, ids: list[str], monkeypatch: pytest.MonkeyPatch):
    (lease,) = Leases(redis, "a").claim("default", ids[:1], 1)
    later = time.monotonic() + leases_module.LEASE_SECONDS + 1
    monkeypatch.setattr(leases_module.time, "monotonic", lambda: later)
    assert not lease.is_held()


def test_what_a_dead_process_held_is_given_back_and_nothing_else(redis: Redis, ids: list[str]):
    dead, other = Leases(redis, "host-1-ab"), Leases(redis, "host-1-abc")
    held = dead.claim("default", ids[:2], 2)
    kept = other.claim("default", ids[2:], 1)
    assert other.release_held_by("host-1-ab", ids) == 2
    assert [redis.exists(lease.key) for lease in held] == [0, 0]
    assert redis.exists(kept[0].key)
    assert other.release_held_by("host-1-ab", []) == 0


def test_a_claim_brings_until_when_the_credential_cools_as_redis_has_it_now(redis: Redis, ids: list[str]):
    credentials, leases = Credentials(redis), Leases(redis, "a")
    until = time.time() + 100
    credentials.set_state("default", ids[0], "cooling", "rate_limited", until)
    credentials.set_state("default", ids[1], "disabled")
    found = leases.claim("default", ids, 9)
    assert [lease.credential_id for lease in found] == [ids[0], ids[2]]
    assert [lease.cooling_until for lease in found] == [pytest.approx(until), 0.0]


def test_a_credential_that_cools_never_cools_shorter(redis: Redis, ids: list[str]):
    credentials = Credentials(redis)
    for seconds in (100, 10):
        credentials.set_state("default", ids[0], "cooling", "rate_limited", time.time() + seconds)
    assert credentials.get(ids[0], ["default"]).until > time.time() + 90


def test_after_another_redis_nothing_is_claimed_until_the_leases_of_the_one_before_have_run_out(
    redis: Redis, ids: list[str], monkeypatch: pytest.MonkeyPatch
):
    leases = Leases(redis, "a")
    (kept,) = leases.claim("default", ids[:1], 1)
    gone = time.monotonic()
    leases.suspend_claims_after(gone)
    assert leases.claim("default", ids, 9) == []
    assert leases.renew([kept]) == []
    monkeypatch.setattr(leases_module.time, "monotonic", lambda: gone + leases_module.LEASE_SECONDS + 3)
    assert [lease.credential_id for lease in leases.claim("default", ids, 9)] == ids[1:]
