"""The sliding logs of an account, at times of the test's own, against a model that remembers every request."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from shared import keys
from shared.errors import AccountResting
from shared.pacing.account_limits import AccountLimits
from shared.pacing.scripts import PACE_LUA, CountRequest
from shared.redis_connection.client import register_script
from tests.redis_dump import dump_redis

BASE = keys.pace("c1")
START_MS = 1_764_000_000_000
MINUTE_MS, DAY_MS = 60_000, 86_400_000
#: Added to each window, since requests take differently long to the upstream.
MARGIN_MS = 500
#: By how much of a window an entry may stay longer than it must: its slot and the margin.
LATEST_MS = {"rpm": 500 + 120, "tpm": 500 + 120, "rpd": 500 + 172_800}


@dataclass(frozen=True)
class Rest:
    until: int
    limit: str


class Account:
    """One account, whose clock the test sets."""

    def __init__(self, redis: Redis, limits: AccountLimits) -> None:
        self.redis = redis
        self.limits = limits
        self.now = START_MS
        self._script = register_script(redis, PACE_LUA, Path(__file__).with_name("driver.lua"))

    def begin(self) -> str | Rest:
        """What was counted, or the rest to take."""
        return parse_reply(self._run("begin"))

    def begin_all(self, count: int) -> list[str]:
        begun = [self.begin() for _ in range(count)]
        assert not [rest for rest in begun if isinstance(rest, Rest)]
        return [counted for counted in begun if isinstance(counted, str)]

    def rest(self) -> Rest:
        rest = self.begin()
        assert isinstance(rest, Rest)
        return rest

    def settle(self, counted: str, sent_ago: float = 0.0, tokens: int = 0) -> None:
        self._run("settle", counted, sent_ago, tokens)

    def look(self) -> None:
        self._run("find")

    def _run(self, *args: object) -> list[bytes]:
        return self._script(keys=[BASE], args=[self.limits.encoded, self.now, *args])  # type: ignore[no-any-return]


def parse_reply(reply: list[bytes]) -> str | Rest:
    return reply[0].decode() if len(reply) == 1 else Rest(int(reply[0]), reply[1].decode())


@dataclass
class Model:
    """Remembers each request: when it arrived at the upstream, and its tokens."""

    requests: list[tuple[int, int]] = field(default_factory=list)

    def count(self, window: int, now: int) -> int:
        return sum(1 for at, _ in self.requests if at > now - window)

    def sum_tokens(self, window: int, now: int) -> int:
        return sum(tokens for at, tokens in self.requests if at > now - window)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("begin", "begin", "begin", "unsent")),
        st.integers(0, 25_000),  # ms until the step
        st.integers(0, 9_000),  # ms until it is sent
        st.integers(0, 3_000),  # ms until it ends
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rpm=st.integers(1, 6), steps=STEPS)
def test_no_window_has_more_requests_than_the_limit_and_no_rest_is_too_long(
    redis: Redis, rpm: int, steps: list[tuple[str, int, int, int]]
):
    redis.flushall()
    account, model = Account(redis, AccountLimits(rpm=rpm)), Model()
    for kind, pause, until_sent, until_end in steps:
        account.now += pause
        counted = account.begin()
        if isinstance(counted, Rest):
            # Somebody who was sent a minute ago, or hardly longer, stands in the way, and it lasts no longer than that.
            assert model.count(MINUTE_MS + LATEST_MS["rpm"], account.now) >= rpm
            assert account.now < counted.until
            account.now = counted.until
            assert model.count(MINUTE_MS, account.now) < rpm
            counted = account.begin()
            assert isinstance(counted, str)
        sent_at = account.now + until_sent
        account.now = sent_at + until_end
        account.settle(counted, -1 if kind == "unsent" else until_end / 1000)
        if kind == "begin":
            model.requests.append((sent_at, 0))
            assert model.count(MINUTE_MS, sent_at) <= rpm


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 400)), max_size=40))
def test_tokens_of_a_window_exceed_the_limit_by_one_request_at_most(redis: Redis, steps: list[tuple[int, int]]):
    redis.flushall()
    account, model = Account(redis, AccountLimits(tpm=500)), Model()
    for pause, tokens in steps:
        account.now += pause
        counted = account.begin()
        if isinstance(counted, Rest):
            assert counted.limit == "account_tpm"
            account.now = counted.until
            counted = account.begin()
            assert isinstance(counted, str)
        used = model.sum_tokens(MINUTE_MS, account.now)
        assert used < 500
        account.now += 1000
        account.settle(counted, 1.0, tokens)
        model.requests.append((account.now, tokens))


def test_several_slots_of_an_account_share_its_limit_whenever_each_was_sent(redis: Redis):
    account = Account(redis, AccountLimits(rpm=3))
    first, second, third = account.begin_all(3)
    account.now += 30_000
    account.settle(second, sent_ago=10.0)
    account.settle(first, sent_ago=30.0)
    account.settle(third, sent_ago=-1.0)
    account.begin_all(1)
    assert account.rest().until <= START_MS + MINUTE_MS + LATEST_MS["rpm"]
    account.now = START_MS + 61_000
    account.begin_all(1)
    assert account.rest().until >= START_MS + 20_000 + MINUTE_MS


def test_limit_of_one_lets_a_request_through_each_minute(redis: Redis):
    account = Account(redis, AccountLimits(rpm=1))
    for _ in range(3):
        begun_at = account.now
        account.begin_all(1)
        rest = account.rest()
        assert MINUTE_MS + MARGIN_MS <= rest.until - begun_at <= MINUTE_MS + LATEST_MS["rpm"]
        assert rest.limit == "account_rpm"
        account.now = rest.until


def test_full_use_of_a_limit_is_at_least_98_percent(redis: Redis):
    account = Account(redis, AccountLimits(rpm=10))
    served = 0
    while account.now < START_MS + 100 * MINUTE_MS:
        begun = account.begin()
        if isinstance(begun, Rest):
            account.now = begun.until
        else:
            served += 1
            account.now += 200
            account.settle(begun, 0.2)
    assert served >= 0.98 * 10 * 100


def test_days_and_minutes_are_counted_apart(redis: Redis):
    account = Account(redis, AccountLimits(rpm=2, rpd=3))
    account.begin_all(2)
    assert account.rest().limit == "account_rpm"
    account.now += 2 * MINUTE_MS
    account.begin_all(1)
    rest = account.rest()
    assert rest.limit == "account_rpd"
    assert DAY_MS <= rest.until - START_MS <= DAY_MS + LATEST_MS["rpd"]


def test_limit_lowered_below_what_is_used_lasts_until_it_fits(redis: Redis):
    account = Account(redis, AccountLimits(rpm=10))
    for _ in range(4):
        account.begin_all(1)
        account.now += 10_000
    account.limits = AccountLimits(rpm=2)
    assert account.rest().until >= START_MS + 20_000 + MINUTE_MS
    account.limits = AccountLimits(rpm=10)
    account.begin_all(6)


def test_gap_runs_from_the_end_of_a_request_or_from_its_start_if_it_never_ended(redis: Redis):
    account = Account(redis, AccountLimits(gap=5))
    (counted,) = account.begin_all(1)
    assert account.rest() == Rest(START_MS + 5_000, "account_gap")
    account.now += 3_000
    account.settle(counted, 3.0)
    assert account.rest() == Rest(START_MS + 8_000, "account_gap")
    account.now += 5_000
    account.begin_all(1)


def test_token_limit_waits_until_the_mean_of_the_last_requests_fits(redis: Redis):
    account = Account(redis, AccountLimits(tpm=1000))
    for _ in range(2):
        (counted,) = account.begin_all(1)
        account.settle(counted, 0.0, 400)
    rest = account.rest()
    assert rest.limit == "account_tpm"
    assert MINUTE_MS <= rest.until - START_MS <= MINUTE_MS + LATEST_MS["tpm"]


def test_request_that_needs_more_than_the_whole_limit_begins_when_nothing_is_used(redis: Redis):
    account = Account(redis, AccountLimits(tpm=100))
    (counted,) = account.begin_all(1)
    account.settle(counted, 0.0, 5000)
    account.now = account.rest().until
    account.begin_all(1)


def test_tokens_of_a_killed_worker_count_as_the_mean(redis: Redis):
    account = Account(redis, AccountLimits(tpm=1000))
    (counted,) = account.begin_all(1)
    account.settle(counted, 0.0, 400)
    account.begin_all(1)
    assert account.rest().limit == "account_tpm"


@pytest.mark.parametrize("limits", [AccountLimits(rpm=2), AccountLimits(rpd=2), AccountLimits(gap=5)])
def test_clock_that_is_set_back_keeps_an_account_for_one_window_at_most(redis: Redis, limits: AccountLimits):
    account = Account(redis, limits)
    begun = account.begin_all(1 if limits.gap else 2)
    account.now -= 3600_000
    window = {"rpm": MINUTE_MS, "rpd": DAY_MS, "gap": 5_000}[account.rest().limit.removeprefix("account_")]
    assert account.rest().until <= account.now + window + LATEST_MS["rpd"]
    for counted in begun:
        account.settle(counted, 0.0)
    assert account.rest().until <= account.now + window + LATEST_MS["rpd"]
    account.now += window + LATEST_MS["rpd"]
    account.begin_all(1)


def test_request_begun_before_the_clock_was_set_back_counts_once(redis: Redis):
    account = Account(redis, AccountLimits(rpm=3))
    (before,) = account.begin_all(1)
    account.now -= 3600_000
    (after,) = account.begin_all(1)
    account.now += 10_000
    account.settle(before, 0.0)
    account.settle(after, 0.0)
    account.begin_all(1)
    assert account.rest().limit == "account_rpm"


def test_request_that_was_never_sent_begins_no_gap_anew(redis: Redis):
    account = Account(redis, AccountLimits(gap=5))
    (counted,) = account.begin_all(1)
    account.now += 3_000
    account.settle(counted, -1.0)
    assert account.rest() == Rest(START_MS + 5_000, "account_gap")


def test_look_changes_nothing_whatever_has_left_the_window(redis: Redis):
    account = Account(redis, AccountLimits(rpm=5, tpm=100, gap=5))
    for _ in range(3):
        (counted,) = account.begin_all(1)
        account.settle(counted, 0.0, 10)
        account.now += 20_000
    before = dump_redis(redis)
    for pause in (-3600_000, 3600_000, 5_000, 20_000, 600_000):
        account.now += pause
        account.look()
        assert dump_redis(redis) == before


def test_logs_stay_short_and_expire(redis: Redis):
    account = Account(redis, AccountLimits(rpm=100_000, tpm=10**9, rpd=10**6, gap=0.001))
    for _ in range(1500):
        account.now += 50
        counted = account.begin()
        assert isinstance(counted, str)
        account.settle(counted, 0.0, 10)
    assert int(redis.llen(f"{BASE}:rpm")) <= 510
    assert {key.decode() for key in redis.keys("farm:pace:*")} == set(keys.pace_keys("c1"))
    assert all(0 < int(redis.pttl(key)) <= 2 * DAY_MS for key in keys.pace_keys("c1"))


def test_request_without_a_job_is_counted_or_told_to_wait(redis: Redis):
    count = CountRequest(redis)
    assert count(BASE, AccountLimits(rpm=1).encoded) is None
    rest = count(BASE, AccountLimits(rpm=1).encoded)
    assert isinstance(rest, AccountResting)
    assert rest.limit == "account_rpm"
    assert 50 < rest.seconds <= 61
