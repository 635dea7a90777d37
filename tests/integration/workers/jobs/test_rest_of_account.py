"""A worker whose account has reached a limit of its own hands back what it was given, and does not count as idle."""

import time
from dataclasses import replace

import pytest
from redis import Redis

from shared import keys
from shared.credentials.records import CredentialRecord
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.errors import AccountResting
from shared.pacing.account_limits import AccountLimits, OwnLimits
from shared.pacing.limit_use import read_limit_use
from shared.pacing.scripts import CountRequest
from tests.integration.workers.jobs.simulated_pool import SimulatedPool
from workers.credentials.leases import Lease
from workers.jobs.job_records import JobCost
from workers.jobs.pace import AccountPace, JobPace

CHAT_QUEUE = "rq:queue:chat:default"


def use_up(redis: Redis) -> AccountPace:
    """The pace of an account that has used up its limit of one request."""
    redis.rpush(f"{keys.pace('c1')}:rpm", "0 0", f"{1000 * time.time():.0f} 1")
    return AccountPace(AccountLimits(rpm=1), keys.pace("c1"), CountRequest(redis))


class RestingAccount:
    """A stored credential, whose account has used up its limit, and a worker for it."""

    def __init__(self, redis: Redis, limits: AccountLimits | None = None) -> None:
        self.redis = redis
        self.pool = SimulatedPool(redis)
        self.credentials = Credentials(redis)
        Unsealer("a secret key for tests").ensure_sealing_key(redis)
        self.id, _ = self.credentials.add("default", "refresh-token", "", "")
        self.worker = self.pool.worker()
        lease = Lease("default", self.id, "p:1", 1e12)
        redis.set(lease.key, lease.value)
        self.worker.lease = lease
        self.worker.rq.name = f"default.{self.id}"
        self.pace = AccountPace(limits or AccountLimits(rpm=1), keys.pace(self.id), CountRequest(redis))
        if limits is None:
            self.use_up()

    def use_up(self) -> None:
        self.redis.rpush(f"{self.pace.key}:rpm", "0 0", f"{1000 * time.time():.0f} 1")

    @property
    def record(self) -> CredentialRecord:
        return self.credentials.get(self.id, ["default"])

    def begin(self) -> None:
        """The worker looks for a job while its account has to rest."""
        with pytest.raises(AccountResting):
            self.look()

    def end(self) -> None:
        """It looks again after the minute, or when the limit is gone."""
        self.redis.delete(f"{self.pace.key}:rpm")
        self.look()

    def look(self) -> None:
        execution = self.pool.bookkeeping.create_execution(self.worker.rq)
        assert self.pool.bookkeeping.begin(self.worker.rq, execution, 60, self.worker.lease, pace=self.pace) is None


def test_popped_job_goes_back_and_worker_leaves_the_idle(redis: Redis):
    pool = SimulatedPool(redis)
    worker = pool.worker()
    assert worker.start() == ""
    assert redis.zcard(keys.idle_workers("default")) == 1
    pace = use_up(redis)
    (job_id,) = pool.enqueue("a")
    assert redis.lmove(CHAT_QUEUE, f"{CHAT_QUEUE}:intermediate").decode() == job_id
    execution = pool.bookkeeping.create_execution(worker.rq, job_id)
    with pytest.raises(AccountResting, match="account_rpm"):
        pool.bookkeeping.begin(worker.rq, execution, 60, worker.lease, pace=pace)
    assert redis.lrange(CHAT_QUEUE, 0, -1) == [job_id.encode()]
    assert redis.zcard(keys.idle_workers("default")) == 0


def test_limit_set_while_a_job_runs_holds_for_the_next(redis: Redis):
    pool = SimulatedPool(redis)
    worker = pool.worker()
    running, waiting = pool.enqueue("a", times=2)
    assert worker.start() == running
    assert worker.started is not None
    pace, execution = use_up(redis), pool.bookkeeping.create_execution(worker.rq)
    with pytest.raises(AccountResting, match="account_rpm"):
        pool.bookkeeping.finish_and_begin(worker.rq, worker.started, execution, 60, worker.lease, ok=True, pace=pace)
    assert redis.lrange(CHAT_QUEUE, 0, -1) == [waiting.encode()]
    assert not redis.exists(f"rq:job:{running}")


@pytest.fixture
def resting(redis: Redis) -> RestingAccount:
    return RestingAccount(redis)


def test_rest_is_the_state_of_the_credential_until_it_ends(resting: RestingAccount):
    resting.begin()
    assert (resting.record.state, resting.record.reason) == ("cooling", "limit_reached: account_rpm")
    assert time.time() + 50 < resting.record.until < time.time() + 62
    resting.end()
    assert (resting.record.state, resting.record.reason, resting.record.until) == ("active", "", 0)


def test_short_rest_is_no_state(redis: Redis):
    account = RestingAccount(redis, AccountLimits(gap=1.5))
    redis.hset(account.pace.key, "last", f"{1000 * time.time():.0f}")
    account.begin()
    assert account.record.state == "active"


def test_rest_goes_on_where_a_shorter_cooldown_ends(resting: RestingAccount):
    resting.credentials.set_state("default", resting.id, "cooling", "rate_limited", time.time() + 5)
    resting.begin()
    assert resting.record.reason == "limit_reached: account_rpm"
    assert resting.record.until > time.time() + 50
    resting.end()
    assert resting.record.state == "active"


def test_longer_cooldown_is_not_ended_by_the_rest(resting: RestingAccount):
    resting.credentials.set_state("default", resting.id, "cooling", "rate_limited", until := time.time() + 300)
    resting.begin()
    assert (resting.record.reason, resting.record.until) == ("rate_limited", pytest.approx(until, abs=0.01))
    resting.end()
    assert (resting.record.state, resting.record.reason) == ("cooling", "rate_limited")


def test_cooldown_that_came_during_a_rest_outlasts_it(resting: RestingAccount):
    resting.begin()
    resting.credentials.set_state("default", resting.id, "cooling", "rate_limited", time.time() + 300)
    resting.end()
    assert (resting.record.state, resting.record.reason) == ("cooling", "rate_limited")


def test_changed_limit_changes_the_published_end(redis: Redis):
    account = RestingAccount(redis, AccountLimits(rpd=1))
    redis.rpush(f"{account.pace.key}:rpd", "0 0", f"{1000 * time.time():.0f} 1")
    account.begin()
    assert account.record.until > time.time() + 80_000
    account.pace = replace(account.pace, limits=AccountLimits(rpm=1))
    account.use_up()
    account.begin()
    assert account.record.reason == "limit_reached: account_rpm"
    assert account.record.until < time.time() + 62


def test_rest_of_a_disabled_credential_changes_nothing(resting: RestingAccount):
    resting.credentials.disable("default", resting.id)
    resting.begin()
    assert resting.record.state == "disabled"
    resting.end()
    assert resting.record.state == "disabled"


def test_history_has_long_rests_and_not_those_before_each_request(redis: Redis):
    account = RestingAccount(redis, AccountLimits(gap=30))
    redis.hset(account.pace.key, "last", f"{1000 * time.time():.0f}")
    account.begin()
    assert account.record.state == "cooling"
    assert account.credentials.get_history(account.id) == ()
    account.pace = replace(account.pace, limits=AccountLimits(rpd=1))
    account.credentials.enable("default", account.id)
    redis.delete(keys.history(account.id))
    redis.rpush(f"{account.pace.key}:rpd", "0 0", f"{1000 * time.time():.0f} 1")
    account.begin()
    assert [change.reason for change in account.credentials.get_history(account.id)] == ["limit_reached: account_rpd"]


def test_failed_jobs_tokens_count_once_though_its_end_is_told_twice(redis: Redis, monkeypatch: pytest.MonkeyPatch):
    limits = AccountLimits(tpm=1000)
    account = RestingAccount(redis, limits)
    account.pool.enqueue("a")
    execution = account.pool.bookkeeping.create_execution(account.worker.rq)
    job = account.pool.bookkeeping.begin(account.worker.rq, execution, 60, account.worker.lease, pace=account.pace)
    assert job is not None
    job.pace = JobPace(account.pace, time.monotonic())
    monkeypatch.setattr(account.worker.rq, "handle_job_failure", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        account.pool.bookkeeping.fail(account.worker.rq, job, "why", JobCost(tokens=40))
    account.pool.bookkeeping.finish(account.worker.rq, job, ok=False, cost=JobCost(tokens=40))
    ((use,),) = read_limit_use(redis, [(account.id, limits, OwnLimits())])
    assert use.remaining == 960
