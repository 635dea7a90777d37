"""What accounts' time went into is added up by the hour, in whole seconds, none of which gets lost or counted twice."""

import pytest
from redis import Redis

from shared import keys
from shared.observability.account_time import account_hours
from shared.observability.account_time.account_hours import (
    HOUR_SECONDS,
    AccountHours,
    compute_busy_share,
    list_hours,
    read_account_hours,
    read_hours_of,
)
from shared.observability.account_time.in_flight import InFlight, read_peaks

NOON = 1_800_000_000 // HOUR_SECONDS * HOUR_SECONDS


class Clock:
    """The time that the test says."""

    now = NOON + 10.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(account_hours.clock, "now", lambda: clock.now)
    return clock


def test_whole_seconds_are_written_and_the_rest_is_kept(redis: Redis, clock: Clock):
    first, second = AccountHours(redis), AccountHours(redis)
    first.add("c1", "busy", 1.75)
    first.add("c1", "idle_waiting", 0.5)
    first.flush()
    assert redis.hgetall(keys.account_seconds(NOON)) == {b"bc1": b"1"}
    assert 0 < redis.ttl(keys.account_seconds(NOON)) <= account_hours.TTL_SECONDS
    first.add("c1", "busy", 0.75)
    second.add("c1", "busy", 3.0)
    second.add("c2", "resting", 60.0)
    for process in (first, second, first):
        process.flush()
    assert redis.hgetall(keys.account_seconds(NOON)) == {b"bc1": b"5", b"cc2": b"60"}
    # What is less than a second goes over to the next hour rather than away.
    clock.now += HOUR_SECONDS
    first.add("c1", "idle_waiting", 0.5)
    first.flush()
    first.flush()
    assert redis.hgetall(keys.account_seconds(NOON + HOUR_SECONDS)) == {b"wc1": b"1"}


def test_more_fields_than_a_call_of_the_script_takes(redis: Redis, clock: Clock):
    hours = AccountHours(redis)
    for number in range(account_hours.BATCH_FIELDS + 1):
        hours.add(f"c{number}", "idle", 2.0)
    hours.flush()
    assert set(redis.hvals(keys.account_seconds(NOON))) == {b"2"}
    assert redis.hlen(keys.account_seconds(NOON)) == account_hours.BATCH_FIELDS + 1


def test_hours_are_read_for_all_accounts_and_for_one(redis: Redis, clock: Clock):
    hours = AccountHours(redis)
    for credential, state, seconds in (("c1", "busy", 30.0), ("c1", "idle", 90.0), ("c2", "refreshing", 5.0)):
        hours.add(credential, state, seconds)
    hours.flush()
    days = list_hours()
    assert (len(days), days[-1]) == (24, NOON)
    *before, present = read_account_hours(redis, days)
    assert not any(before)
    assert present == {"c1": {"busy": 30.0, "idle": 90.0}, "c2": {"refreshing": 5.0}}
    *before, own = read_hours_of(redis, "c1", days)
    assert not any(before)
    assert own == present["c1"]
    assert (compute_busy_share(own), compute_busy_share({})) == (0.25, None)


def test_peak_is_the_highest_of_all_processes_and_of_all_time(redis: Redis):
    first, second = InFlight(), InFlight()
    for _ in range(3):
        first.begin("default", "c1", 0)
        first.end("c1")
    second.begin("default", "c1", 0)
    second.begin("default", "c2", 0)
    for process in (first, second):
        process.flush(redis)
    assert read_peaks(redis) == {"default": 1}
    second.begin("default", "c1", 0)
    second.flush(redis)
    first.begin("other", "c9", 0)
    first.flush(redis)
    assert read_peaks(redis) == {"default": 2, "other": 1}
