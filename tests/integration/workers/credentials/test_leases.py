"""Leases give each credential to one worker process at a time."""

import time

import pytest
from redis import Redis

from shared import clock
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.redis_connection.auto_pipeline import AutoPipeline
from shared.redis_connection.client import connect
from workers.credentials import leases as leases_module
from workers.credentials.leases import Candidate, Leases


@pytest.fixture
def ids(redis: Redis, unsealer: Unsealer) -> list[str]:
    return list(Credentials(redis).import_lines("default", ["t1", "t2", "t3"]).new_ids)


def test_credential_has_one_owner(redis: Redis, ids: list[str]):
    first = Leases(redis, "a").claim("default", ids, 2)
    second = Leases(redis, "b").claim("default", ids, 9)
    assert [lease.credential_id for lease in first] == ids[:2]
    assert [lease.credential_id for lease in second] == ids[2:]
    assert all(lease.is_held() for lease in first + second)


def test_each_owner_gets_a_higher_fencing_token(redis: Redis, ids: list[str]):
    leases = Leases(redis, "a")
    fencing_tokens = []
    for _ in range(3):
        (lease,) = leases.claim("default", ids[:1], 1)
        fencing_tokens.append(int(lease.value.rpartition(":")[2]))
        leases.release(lease)
        assert not lease.is_held()
    assert fencing_tokens == [1, 2, 3]


def test_removed_credential_is_not_claimed(redis: Redis, ids: list[str]):
    Credentials(redis).remove("default", ids[0])
    assert Leases(redis, "a").claim("default", ids[:1], 1) == []


def test_credentials_of_many_pools_are_claimed_at_once(redis: Redis, ids: list[str]):
    """The first ones that are free, those of another token endpoint left alone."""
    store = Credentials(redis)
    other = store.add("other", "t4", token_origin="https://other.example")[0]
    Leases(redis, "a").claim("default", ids[:1], 1)
    candidates = [Candidate("default", id_) for id_ in ids]
    candidates[1:1] = [Candidate("other", other, "https://elsewhere.example"), Candidate("default", other)]
    leases = Leases(redis, "b")
    assert [lease.credential_id for lease in leases.claim_any(candidates, 1)] == [ids[1]]
    candidates.append(Candidate("other", other, "https://other.example"))
    claimed = leases.claim_any(candidates, 9)
    assert [(lease.pool, lease.credential_id) for lease in claimed] == [("default", ids[2]), ("other", other)]
    assert [redis.get(lease.key) for lease in claimed] == [b"b:1", b"b:1"]


def test_leases_are_released_while_all_connections_for_renewals_are_busy(redis: Redis, redis_url: str, ids: list[str]):
    for_renewals = connect(redis_url, size=1, timeout=0.1)
    leases = Leases(for_renewals, "a", pipeline=AutoPipeline(redis, eager=True))
    claimed = leases.claim("default", ids, 3)
    busy = for_renewals.connection_pool.get_connection()
    for lease in claimed:
        leases.release(lease)
    for_renewals.connection_pool.release(busy)
    assert redis.exists(*(lease.key for lease in claimed)) == 0


def test_renew_extends_leases_and_returns_lost_ones(redis: Redis, ids: list[str]):
    leases = Leases(redis, "a")
    kept, taken, expired = leases.claim("default", ids, 3)
    redis.set(taken.key, "b:9")
    redis.delete(expired.key)
    redis.pexpire(kept.key, 500)
    assert leases.renew([kept, taken, expired]) == [taken, expired]
    assert redis.pttl(kept.key) > 5000
    assert (kept.is_held(), taken.is_held(), expired.is_held()) == (True, False, False)
    assert leases.renew([]) == []


def test_lease_is_relied_on_no_longer_than_the_primary_is_certain(redis: Redis, ids: list[str]):
    confirmed_at = clock.lease_time()
    leases = Leases(redis, "a", lambda: confirmed_at)
    (lease,) = leases.claim("default", ids[:1], 1)
    assert lease.is_held()
    confirmed_at -= leases_module.LEASE_SECONDS
    leases.renew([lease])
    assert not (lease.is_held() or lease.lost)
    assert not leases.claim("default", ids[1:2], 1)[0].is_held()
    confirmed_at = clock.lease_time()
    leases.renew([lease])
    assert lease.is_held()


def test_release_of_a_lost_lease_leaves_it_to_its_new_owner(redis: Redis, ids: list[str]):
    leases = Leases(redis, "a")
    (lease,) = leases.claim("default", ids[:1], 1)
    redis.set(lease.key, "b:9")
    leases.release(lease)
    assert redis.get(lease.key) == b"b:9"


def test_frozen_owner_sees_its_lease_expire_by_its_own_clock(
    redis: Redis, ids: list[str], monkeypatch: pytest.MonkeyPatch
):
    (lease,) = Leases(redis, "a").claim("default", ids[:1], 1)
    later = clock.lease_time() + leases_module.LEASE_SECONDS + 1
    monkeypatch.setattr(clock, "lease_time", lambda: later)
    assert not lease.is_held()


def test_lease_outlives_ten_seconds_of_silence_of_redis():
    """They begin right before a renewal, which is lost, and end right after the last one in vain was given up."""
    last_renewal_before = leases_module.RENEW_INTERVAL_SECONDS
    first_renewal_after = leases_module.TOLERATED_SILENCE_SECONDS + leases_module.RENEW_RETRY_SECONDS
    for_busy_machines = 2.0
    valid = leases_module.LEASE_SECONDS - leases_module.SAFETY_MARGIN_SECONDS
    assert leases_module.TOLERATED_SILENCE_SECONDS >= 10
    assert valid >= last_renewal_before + first_renewal_after + for_busy_machines


def test_lease_is_still_held_after_redis_was_silent(redis: Redis, ids: list[str]):
    """Time goes on in a Redis that is paused, so a lease has to live longer than the silence there too."""
    leases = Leases(redis, "a")
    held = leases.claim("default", ids, 3)
    redis.execute_command("CLIENT", "PAUSE", 1000, "ALL")
    assert leases.renew(held) == []
    assert all(lease.is_held() for lease in held)


def test_lease_runs_out_while_the_machine_is_suspended(redis: Redis, ids: list[str], monkeypatch: pytest.MonkeyPatch):
    (lease,) = Leases(redis, "a").claim("default", ids[:1], 1)
    read_clock = time.clock_gettime

    def suspended_for_an_hour(which: int) -> float:
        return read_clock(which) + (3600 if which == clock.LEASE_CLOCK != time.CLOCK_MONOTONIC else 0)

    monkeypatch.setattr(time, "clock_gettime", suspended_for_an_hour)
    assert lease.is_held() == (clock.LEASE_CLOCK == time.CLOCK_MONOTONIC)


def test_release_held_by_frees_only_the_leases_of_the_dead_process(redis: Redis, ids: list[str]):
    dead, living = Leases(redis, "host-1-ab"), Leases(redis, "host-1-abc")
    held = dead.claim("default", ids[:2], 2)
    kept = living.claim("default", ids[2:], 1)
    assert sorted(living.release_held_by("host-1-ab", ids)) == sorted(ids[:2])
    assert [redis.exists(lease.key) for lease in held] == [0, 0]
    assert redis.exists(kept[0].key)
    assert living.release_held_by("host-1-ab", ids) == living.release_held_by("host-1-ab", []) == []


def test_claim_returns_the_cooldown_stored_in_redis(redis: Redis, ids: list[str]):
    credentials, leases = Credentials(redis), Leases(redis, "a")
    until = time.time() + 100
    credentials.set_state("default", ids[0], "cooling", "rate_limited", until)
    credentials.set_state("default", ids[1], "disabled")
    claimed = leases.claim("default", ids, 9)
    assert [lease.credential_id for lease in claimed] == [ids[0], ids[2]]
    assert [lease.cooling_until for lease in claimed] == [pytest.approx(until), 0.0]


def test_cooldown_is_never_shortened(redis: Redis, ids: list[str]):
    credentials = Credentials(redis)
    for seconds in (100, 10):
        credentials.set_state("default", ids[0], "cooling", "rate_limited", time.time() + seconds)
    assert credentials.get(ids[0], ["default"]).until > time.time() + 90


def test_claims_are_suspended_until_leases_of_a_replaced_redis_expire(
    redis: Redis, ids: list[str], monkeypatch: pytest.MonkeyPatch
):
    leases = Leases(redis, "a")
    (kept,) = leases.claim("default", ids[:1], 1)
    replaced_at = time.monotonic()
    leases.suspend_claims_after(replaced_at, float("-inf"))
    assert leases.claim("default", ids, 9) == []
    assert leases.renew([kept]) == []
    monkeypatch.setattr(leases_module.time, "monotonic", lambda: replaced_at + leases_module.LEASE_SECONDS + 3)
    assert [lease.credential_id for lease in leases.claim("default", ids, 9)] == ids[1:]


def test_claims_wait_after_a_failover_until_the_others_have_moved_too(
    redis: Redis, ids: list[str], monkeypatch: pytest.MonkeyPatch
):
    """A primary that this process lost long ago may have served others until another one was promoted."""
    leases = Leases(redis, "a")
    moved_at = time.monotonic()
    leases.suspend_claims_after(moved_at - 60, moved_at)
    assert leases.claim("default", ids, 9) == []
    monkeypatch.setattr(leases_module.time, "monotonic", lambda: moved_at + leases_module.FAILOVER_SETTLE_SECONDS)
    assert [lease.credential_id for lease in leases.claim("default", ids, 9)] == ids
