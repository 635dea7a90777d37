"""Limits of a single account are in force at the next request of running workers."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from shared import keys
from shared.protocol.messages import FrameKind
from tests import internals
from tests.integration.harness import WorkerHarness, collect_frames
from tests.waiting import eventually
from workers.credentials.leases import Leases
from workers.per_pool import PerPool
from workers.process.membership import Membership
from workers.process.worker_set import WorkerSet


class Process:
    """A worker process of one worker that reconciles when the test says so."""

    def __init__(self, harness: WorkerHarness) -> None:
        self.harness = harness
        membership = Membership(harness.redis, "here", harness.settings)
        queues: PerPool[Any] = PerPool(lambda _: None)
        leases = Leases(harness.redis, "here")
        self.workers = WorkerSet(harness.services, leases, membership, None, queues)  # type: ignore[arg-type]
        internals.add_workers(self.workers, {harness.worker.name: harness.worker})

    def set_limits(self, limits: Mapping[str, float | None]) -> None:
        assert self.harness.credentials.set_limits(self.harness.credential_id, limits)
        self.workers.reconcile()


@pytest.fixture
def start(start_harness: Callable[..., WorkerHarness]) -> Callable[..., Process]:
    """Starts a process; arguments are settings of its pool."""

    def start(**pool: Any) -> Process:
        harness = start_harness(pool=pool)
        harness.wait_until_idle()
        return Process(harness)

    return start


def rest(process: Process) -> None:
    """Has the account use up its limit of one request."""
    for request_id in ("req_1", "req_2"):
        process.harness.enqueue(request_id)
    eventually(lambda: process.harness.credential_state() == ("cooling", "limit_reached: account_rpm"))


def test_account_gets_a_limit_that_its_pool_has_not(start: Callable[..., Process]):
    process = start()
    process.set_limits({"account_rpm": 1})
    rest(process)
    assert process.harness.upstream.counters()["requests"] == 1


@pytest.mark.parametrize("limit", [5, 0], ids=["higher", "none"])
def test_other_limit_ends_a_rest_by_the_pools(start: Callable[..., Process], limit: int):
    process = start(account_rpm=1)
    rest(process)
    process.set_limits({"account_rpm": limit})
    eventually(lambda: process.harness.queue.count_waiting("default") == 0)
    eventually(lambda: process.harness.credential_state() == ("active", ""))


def test_limits_that_are_the_same_as_before_end_no_rest(start: Callable[..., Process]):
    process = start()
    process.set_limits({"account_rpm": 1})
    rest(process)
    process.workers.reconcile()
    assert process.harness.worker.runner.health.limit_rest.remaining() > 30


def test_account_that_has_lost_its_own_limit_has_the_pools(start: Callable[..., Process]):
    process = start(account_rpm=5)
    process.set_limits({"account_rpm": 1})
    rest(process)
    process.set_limits({"account_rpm": None})
    assert collect_frames(process.harness.enqueue("req_3"))[-1].kind is FrameKind.END
    assert not process.harness.redis.exists(keys.CREDENTIAL_LIMITS)
