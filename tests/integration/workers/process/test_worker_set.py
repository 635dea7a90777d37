"""A worker process sends heartbeats for its workers and stops surplus ones."""

import math
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from redis import Redis
from rq import SimpleWorker, worker_registration

from shared import keys
from shared.credentials.private import PrivateCredentials
from shared.credentials.unsealing import Unsealer
from tests import internals
from tests.integration.harness import WorkerHarness
from tests.waiting import eventually
from workers.process.worker_set import HEARTBEAT_ROUNDS, WorkerSet
from workers.worker.registration import register


class HeartbeatRecorder:
    """A worker that counts its heartbeats."""

    def __init__(self) -> None:
        self.heartbeat_at = time.monotonic()
        self.heartbeats = 0
        self.has_ended, self.is_registered = False, True

    def heartbeat_into(self, pipe: Any) -> None:
        self.heartbeat_at = time.monotonic()
        self.heartbeats += 1


class EndingWorker(SimpleWorker):
    """A worker that ends while its heartbeat is on its way to Redis, which registers it again."""

    heartbeat_at, heartbeats, has_ended, is_registered = 0.0, 0, False, True

    def heartbeat_into(self, pipe: Any) -> None:
        self.heartbeats += 1
        worker_registration.register(self, pipe)
        self.has_ended = True


def test_heartbeat_of_a_worker_that_has_ended_does_not_register_it_again(redis: Redis):
    worker_set = WorkerSet(SimpleNamespace(redis=redis), None, None, None, {})  # type: ignore[arg-type]
    worker = EndingWorker(["chat:default"], name="default.a", connection=redis, prepare_for_work=False)
    internals.add_workers(worker_set, {"a": worker})
    worker_set.heartbeat()
    worker_set.heartbeat()
    assert worker.heartbeats == 1
    assert redis.keys("rq:workers*") == []


def test_worker_of_a_forgotten_private_credential_is_registered_no_more(redis: Redis, unsealer: Unsealer):
    private = PrivateCredentials(redis)
    name = private.add("default", "a-token", 1)
    queues = [f"chat:{name}", f"batch:{name}"]
    worker = SimpleWorker(queues, name=f"{name}.a", connection=redis, prepare_for_work=False)
    with redis.pipeline() as pipe:
        register(worker, name, pipe)
        pipe.execute()
        assert {key.decode() for key in redis.keys("rq:workers*")} == {
            "rq:workers",
            *(f"rq:workers:{q}" for q in queues),
        }
        private.forget(name)
        register(worker, name, pipe)
        pipe.execute()
    assert redis.keys("rq:workers*") == []


def test_token_is_renewed_during_a_request(start_harness: Callable[..., WorkerHarness], redis: Redis):
    harness = start_harness(first_byte_timeout=60.0)
    harness.wait_until_idle()
    worker_set = WorkerSet(harness.services, None, None, None, {})  # type: ignore[arg-type]
    internals.add_workers(worker_set, {"a": harness.worker})
    harness.upstream.pace(delay=60)
    harness.enqueue()
    eventually(lambda: harness.worker.runner.is_running("req_1"))
    redis.hset(keys.credential(harness.credential_id), "access_expires", time.time() + 30)
    harness.worker.runner.token.renew_at = 0.0
    worker_set.refresh_due_tokens()
    eventually(lambda: harness.upstream.counters()["refreshes"] == 2)
    harness.worker.runner.cancel("client_gone")


def test_heartbeats_are_spread_over_rounds_and_reach_every_worker(redis: Redis):
    worker_set = WorkerSet(SimpleNamespace(redis=redis), None, None, None, {})  # type: ignore[arg-type]
    workers = {str(i): HeartbeatRecorder() for i in range(45)}
    internals.add_workers(worker_set, workers)
    for round_number in range(1, HEARTBEAT_ROUNDS + 1):
        worker_set.heartbeat_oldest()
        assert sum(worker.heartbeats for worker in workers.values()) <= round_number * math.ceil(45 / HEARTBEAT_ROUNDS)
    assert min(worker.heartbeats for worker in workers.values()) >= 1
    assert max(worker.heartbeats for worker in workers.values()) <= 2
    worker_set.heartbeat()
    assert min(worker.heartbeats for worker in workers.values()) >= 2


def test_worker_that_has_not_begun_to_run_sends_no_heartbeat_yet(start_harness: Callable[..., WorkerHarness]):
    harness = start_harness()
    worker_set = WorkerSet(harness.services, None, None, None, {})  # type: ignore[arg-type]
    new, older = harness.worker, HeartbeatRecorder()
    internals.add_workers(worker_set, {new.name: new, "older": older})
    assert not new.is_registered
    for send in (worker_set.heartbeat, worker_set.heartbeat_oldest):
        send()
    assert older.heartbeats == 2
    eventually(lambda: new.is_registered)
    registered_at = new.heartbeat_at
    worker_set.heartbeat()
    assert new.heartbeat_at > registered_at


class IdleWorker:
    """A worker without a job. Comparing it fails: comparing a thousand workers takes a million comparisons."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lease = SimpleNamespace(pool="default", credential_id=name, lost=False)
        self.runner = SimpleNamespace(busy_since=0.0)
        self.is_stopping = False

    def stop(self) -> None:
        self.is_stopping = True

    def __eq__(self, other: object) -> bool:
        raise AssertionError("workers are compared")

    __hash__ = None  # type: ignore[assignment]


def test_surplus_and_unusable_workers_stop_without_comparisons():
    membership: Any = SimpleNamespace(
        usable_credentials_in_group=lambda _: ["a", "b", "c", "d"], fair_share=lambda _: 2
    )
    worker_set = WorkerSet(SimpleNamespace(), None, membership, None, {})  # type: ignore[arg-type]
    workers = {name: IdleWorker(name) for name in "abcdx"}
    workers["a"].runner.busy_since = 1.0
    workers["d"].lease.lost = True
    internals.add_workers(worker_set, workers)
    internals.stop_surplus(worker_set, "default")
    assert [name for name, worker in workers.items() if worker.is_stopping] == ["b", "d", "x"]
