"""Who ends a batch, and that the result of a line that still runs then comes too late."""

from collections.abc import Callable

import pytest
from redis import Redis

from shared import clock
from shared.batches.batch import COMPLETED, Batch
from shared.batches.batch_leases import BatchLeases
from shared.batches.batch_lines import BatchLines
from shared.batches.batch_store import Batches
from shared.batches.running_line import begin_run
from shared.redis_connection.auto_pipeline import AutoPipeline
from tests.builders import stand_in_input
from web.batches.transitions import Transitions


def add_batch(redis: Redis, status: str) -> Batch:
    batch = Batch("b", "k", "/v1/completions", "file-1", "file-2", "file-3", 1, "24h", 2, status=status, total=1)
    with stand_in_input(redis, "file-1"):
        Batches(redis).add(batch)
    return batch


@pytest.mark.parametrize(
    ("status", "change"),
    [
        ("in_progress", lambda transitions, batch: transitions.finalize(batch, COMPLETED)),
        ("in_progress", lambda transitions, batch: transitions.fail(batch, [])),
        ("cancelling", lambda transitions, batch: transitions.disown_cancelled(batch)),
    ],
    ids=["finalize", "fail", "cancel"],
)
def test_running_lines_are_disowned(redis: Redis, status: str, change: Callable[[Transitions, Batch], bool]):
    batch, run = add_batch(redis, status), begin_run("f1", clock.now(), 0, 10)
    store, lines = Batches(redis), BatchLines(redis, AutoPipeline(redis))
    assert BatchLeases(redis).hold("b", "f1") and lines.begin("b", "f1", 1, run)

    assert not change(Transitions(store, "f2"), batch) and lines.read_running("b")
    assert change(Transitions(store, "f1"), batch)

    assert not lines.record_result("b", 1, run, "completed", b"o{}\n", {})
    assert store.get("b").completed == 0


def test_a_batch_that_is_cancelled_at_that_moment_does_not_fail(redis: Redis):
    batch, store = add_batch(redis, "in_progress"), Batches(redis)
    assert BatchLeases(redis).hold("b", "f1") and store.cancel("b").status == "cancelling"
    assert not Transitions(store, "f1").fail(batch, [])
    assert store.get("b").status == "cancelling"
