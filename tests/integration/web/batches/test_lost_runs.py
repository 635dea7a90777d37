"""A front that may run a batch no longer."""

from typing import Any

import gevent
import pytest
from redis import Redis

from shared import keys
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from tests.integration.web.batches.batch_harness import BatchHarness, build_lines
from tests.integration.web.batches.conftest import StartFront
from tests.waiting import eventually
from web.batches import batch_lease
from web.batches.batch_run import BatchRun


@pytest.fixture
def front(start_front: StartFront, unsealer: Unsealer, redis: Redis) -> BatchHarness:
    Credentials(redis).add("default", "token")
    return start_front()


def build_run(front: BatchHarness, **fields: Any) -> BatchRun:
    batch = front.create(build_lines(3), total=3, **fields)
    front.batches.leases.hold(batch.id, front.batches.front_id)
    return BatchRun(front.batches, batch.id, lambda _: 1)


def test_a_run_that_was_stopped_lasts_until_its_lines_have_ended(front: BatchHarness):
    """The front waits for it before it ends."""
    run = build_run(front, status="in_progress")
    running = gevent.spawn(run.run)
    eventually(lambda: len(run.lines) == 3)
    run.stop()
    running.join(timeout=0.5)
    assert not running.dead and len(run.lines) == 3
    run.lines.kill()
    running.get(timeout=30)


@pytest.mark.parametrize("status", ["validating", "in_progress", "finalizing", "cancelling"])
def test_a_lost_lease_makes_no_busy_loop(front: BatchHarness, monkeypatch: pytest.MonkeyPatch, status: str):
    monkeypatch.setattr(batch_lease, "RENEWAL_SECONDS", 0.3)
    run, store, looks = build_run(front, status=status), front.batches.store, []
    (name,) = front.redis.keys(keys.batch_lease("*"))
    front.redis.set(name, "another")
    find = store.find
    monkeypatch.setattr(store, "find", lambda batch_id: looks.append(batch_id) or find(batch_id))
    gevent.spawn(run.run).get(timeout=30)
    assert len(looks) <= 10
    assert front.redis.get(name) == b"another"
