"""Workers of newly claimed credentials start in few round trips to Redis, after the jobs of their predecessors."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from shared import names
from shared.credentials.private import PrivateCredentials
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.errors import AccountResting
from shared.protocol.relay_queue import RelayQueue
from shared.ready_flag import ReadyFlag
from shared.settings.schema import PoolSettings, Settings
from tests import internals
from tests.builders import build_request
from tests.own_redis import count_sends
from workers.credentials.leases import Lease, Leases
from workers.process.worker_process import WorkerProcess
from workers.process_slot import SpawnInfo
from workers.worker.rq_worker import FarmWorker

POOL = PoolSettings(upstream_url="http://127.0.0.1:9/v1", token_url="http://127.0.0.1:9/token", slots=2)


class StartingProcess:
    """A worker process whose workers do not run."""

    def __init__(self, redis_url: str, unsealer: Unsealer, process_id: str, **pool: Any) -> None:
        settings = Settings(redis_url=redis_url, pools=(replace(POOL, **pool),))
        process = WorkerProcess(settings, unsealer, SpawnInfo(process_id, "", True, 1, False, ReadyFlag()))
        self.started: list[FarmWorker] = []
        self.on_start: Callable[[FarmWorker], object] = lambda _: None
        self.refresh_membership = partial(internals.membership(process).refresh, ())
        self.starter = internals.build_starter(process, self._run)
        self.bookkeeping = internals.bookkeeping(process, "default")

    def _run(self, worker: FarmWorker) -> None:
        self.on_start(worker)
        self.started.append(worker)

    def start(self, leases: list[Lease]) -> list[str]:
        """The names of the workers that have started, in any order."""
        self.started.clear()
        self.starter.start(leases)
        return sorted(worker.name for worker in self.started)


def claim(redis: Redis, count: int) -> list[Lease]:
    store = Credentials(redis)
    ids = [store.add("default", f"token {number}")[0] for number in range(count)]
    return Leases(redis, "here").claim("default", ids, count)


def name_workers(leases: list[Lease]) -> list[str]:
    return sorted(names.worker_name("default", lease.credential_id, slot) for lease in leases for slot in (1, 2))


def leave_jobs(redis: Redis, process: StartingProcess, leases: list[Lease], request_ids: list[str]) -> None:
    """Has the first workers of the process begin these jobs; then the process is gone."""
    process.start(leases)
    for worker, request_id in zip(process.started, request_ids, strict=False):
        RelayQueue(redis, 100).enqueue(build_request(request_id), b"{}")
        execution = process.bookkeeping.create_execution(worker)
        assert process.bookkeeping.begin(worker, execution, 60, worker.lease)
    redis.delete(*(lease.key for lease in leases))


def test_workers_start_with_the_limits_of_their_pool_and_of_their_account(
    redis: Redis, redis_url: str, unsealer: Unsealer
):
    process = StartingProcess(redis_url, unsealer, "a", account_rpm=7, private_credentials=True)
    leases = claim(redis, 2)
    private_pool = PrivateCredentials(redis).add("default", "a caller's", 1)
    private_id = private_pool.partition("~")[2]
    leases += Leases(redis, "here").claim(private_pool, [private_id], 1)
    for credential_id, tpm in ((leases[0].credential_id, 5), (private_id, 6)):
        Credentials(redis).set_limits(credential_id, {"account_tpm": tpm})
    process.refresh_membership()
    process.start(leases)
    paces = {worker.lease.credential_id: worker.credential.pace for worker in process.started}
    limits = {credential_id: pace.limits.encoded for credential_id, pace in paces.items() if pace}
    expected = {leases[0].credential_id: "7 5 0 0", leases[1].credential_id: "7 0 0 0", private_id: "7 6 0 0"}
    assert limits == expected


def test_successor_of_a_running_request_stays_within_the_limit(redis: Redis, redis_url: str, unsealer: Unsealer):
    leases = claim(redis, 1)
    process = StartingProcess(redis_url, unsealer, "a", account_rpm=2)
    for request_id in ("req_1", "req_2", "req_3"):
        RelayQueue(redis, 100).enqueue(build_request(request_id), b"{}")
    begin_next(process, leases)
    redis.delete(leases[0].key)
    again = Leases(redis, "b").claim("default", [leases[0].credential_id], 1)
    successor = StartingProcess(redis_url, unsealer, "b", account_rpm=2)
    begin_next(successor, again)
    with pytest.raises(AccountResting) as resting:
        begin_next(successor, again)
    assert resting.value.limit == "account_rpm"


def begin_next(process: StartingProcess, leases: list[Lease]) -> None:
    """Starts the workers, and has the first one begin the next job. Raises AccountResting."""
    process.start(leases)
    worker = process.started[0]
    execution = process.bookkeeping.create_execution(worker)
    assert process.bookkeeping.begin(worker, execution, 60, worker.lease, pace=worker.credential.pace)


def test_workers_start_after_one_round_trip_however_many_there_are(own_redis: Redis, own_redis_url: str):
    unsealer = Unsealer("a secret key for tests")
    unsealer.ensure_sealing_key(own_redis)
    process, leases = StartingProcess(own_redis_url, unsealer, "a"), claim(own_redis, 31)
    process.start(leases[:1])
    with count_sends(own_redis) as count:
        assert process.start(leases[1:]) == name_workers(leases[1:])
    assert count.sends == 1


def test_jobs_of_predecessors_are_requeued_before_their_workers_start(redis: Redis, redis_url: str, unsealer: Unsealer):
    leases = claim(redis, 6)
    request_ids = [f"req_{number}" for number in range(5)]
    leave_jobs(redis, StartingProcess(redis_url, unsealer, "a"), leases, request_ids)
    again = Leases(redis, "b").claim("default", [lease.credential_id for lease in leases], 6)
    successor, jobs_left = StartingProcess(redis_url, unsealer, "b"), list[int]()
    successor.on_start = lambda worker: jobs_left.append(redis.exists(worker.executions_key))
    assert successor.start(again) == name_workers(leases)
    assert jobs_left == [0] * 12
    retries = [redis.hget(f"rq:job:{request_id}", "number_of_retries") for request_id in request_ids]
    assert retries == [b"1"] * 5


def test_jobs_that_cannot_be_recovered_keep_back_their_own_workers_only(
    redis: Redis, redis_url: str, unsealer: Unsealer
):
    leases = claim(redis, 3)
    process = StartingProcess(redis_url, unsealer, "a")
    process.start(leases)
    executions = next(w for w in process.started if w.lease is leases[1]).executions_key
    redis.set(executions, "no set")
    with pytest.raises(ResponseError):
        process.start(leases)
    assert sorted(worker.name for worker in process.started) == name_workers([leases[0], leases[2]])
    assert [redis.exists(lease.key) for lease in leases] == [1, 0, 1]
