"""Batches in Redis: each step of a line is taken once, and by the front that has the lease."""

import time
from typing import Any

import pytest
from redis import Redis

from shared import clock, keys
from shared.batches import batch_store
from shared.batches.batch import Batch, new_batch_id
from shared.batches.batch_store import Batches, StagedResults, TooManyBatches
from shared.batches.running_line import NOBODY, RunningLine, begin_run
from shared.errors import Conflict, NotFound


def add(store: Batches, key: str = "k1", **fields: Any) -> Batch:
    now = int(clock.now())
    batch = Batch(
        new_batch_id(), key, "/v1/completions", "file-1", "file-2", "file-3", now, "24h", now + 86_400, **fields
    )
    store.add(batch)
    return batch


@pytest.fixture
def store(redis: Redis) -> Batches:
    return Batches(redis)


@pytest.fixture
def batch(store: Batches) -> Batch:
    """One that is in progress, with the lease of the front `f1`."""
    batch = add(store, status="in_progress", total=3)
    assert store.hold_lease(batch.id, "f1")
    return batch


def begin(store: Batches, batch: Batch, number: int, front: str = "f1") -> RunningLine | None:
    run = begin_run(front, clock.now(), 10 * number, 10)
    return run if store.begin_line(batch.id, front, number, run, after=number - 1) else None


def record(store: Batches, batch: Batch, number: int, run: RunningLine, result: bytes = b"o{}\n") -> bool:
    return store.record_result(batch.id, number, run, "completed", result, {"input_tokens": 2})


def test_a_line_begins_once_and_in_order(store: Batches, batch: Batch):
    assert begin(store, batch, 1)
    assert not begin(store, batch, 1) and not begin(store, batch, 3)
    assert begin(store, batch, 2)
    assert (store.get(batch.id).last_line, store.get(batch.id).next_offset) == (2, 30)


def test_a_front_without_the_lease_begins_nothing(store: Batches, batch: Batch):
    assert not store.hold_lease(batch.id, "f2") and not begin(store, batch, 1, "f2")
    store.give_up_lease(batch.id, "f1")
    assert not begin(store, batch, 1)
    assert store.hold_lease(batch.id, "f2") and begin(store, batch, 1, "f2")


def test_a_result_is_recorded_once(store: Batches, batch: Batch):
    run = begin(store, batch, 1)
    assert record(store, batch, 1, run) and not record(store, batch, 1, run)
    found = store.get(batch.id)
    assert (found.completed, found.input_tokens, found.result_bytes) == (1, 2, 4)
    assert store.read_running(batch.id) == {}


def test_the_result_of_a_run_that_was_replaced_is_dropped(store: Batches, batch: Batch):
    late = begin(store, batch, 1)
    run = begin_run("f1", clock.now(), late.offset, late.length)
    assert store.begin_line(batch.id, "f1", 1, run, instead_of=late)
    store.release_line(batch.id, 1, late)
    assert not record(store, batch, 1, late) and record(store, batch, 1, run)
    assert store.get(batch.id).completed == 1


def test_a_line_with_a_result_never_begins_again(store: Batches, batch: Batch, redis: Redis):
    run = begin(store, batch, 1)
    record(store, batch, 1, run)
    redis.hset(keys.batch_running(batch.id), "1", run.encode())
    assert not store.begin_line(batch.id, "f1", 1, begin_run("f1", 0, 0, 0), instead_of=run)
    assert not record(store, batch, 1, run)
    assert store.get(batch.id).completed == 1


def test_a_released_line_is_nobodys(store: Batches, batch: Batch):
    run = begin(store, batch, 1)
    store.release_line(batch.id, 1, run)
    assert store.read_running(batch.id)[1].front == NOBODY
    assert not record(store, batch, 1, run)
    store.release_line(batch.id, 1, run)


def test_the_lease_of_a_front_that_has_ended_is_taken_at_once(store: Batches, batch: Batch, redis: Redis):
    redis.zadd(keys.FRONTS, {"f1": clock.now()})
    assert store.take_leases([batch.id], "f2", 5) == []
    redis.set(keys.front_gone("f1"), 1)
    other = add(store)
    assert store.take_leases([batch.id, other.id], "f2", 1) == [batch.id]
    assert store.take_leases([batch.id, other.id], "f2", 5) == [batch.id, other.id]
    assert not begin(store, batch, 1)
    assert begin(store, batch, 1, "f2")


def test_only_fronts_that_have_ended_are_gone(store: Batches, redis: Redis):
    redis.zadd(keys.FRONTS, {"alive": clock.now(), "dead": clock.now()})
    redis.set(keys.front_gone("dead"), 1)
    assert store.find_gone(["alive", "dead", "left"]) == {"dead", "left"}


def test_a_part_is_the_same_until_it_is_committed(store: Batches, batch: Batch, redis: Redis):
    for number in (1, 2):
        record(store, batch, number, begin(store, batch, number), b"o%d\n" % number)
    staged = store.stage_results(batch.id, "f1")
    record(store, batch, 3, begin(store, batch, 3), b"e3\n")
    assert store.stage_results(batch.id, "f1") == staged and staged.results == [b"o1\n", b"o2\n"]

    assert not store.commit_results(batch.id, "f1", StagedResults(staged.results[:1], "[]", "[]"), [4], [])
    assert store.commit_results(batch.id, "f1", staged, [4], [])
    assert not store.commit_results(batch.id, "f1", staged, [4], [])

    found = store.get(batch.id)
    assert (found.output_parts, found.error_parts, found.result_bytes) == ([4], [], 3)
    assert store.stage_results(batch.id, "f1").results == [b"e3\n"]


def test_a_front_without_the_lease_stores_no_part(store: Batches, batch: Batch):
    record(store, batch, 1, begin(store, batch, 1))
    staged = store.stage_results(batch.id, "f1")
    assert store.stage_results(batch.id, "f2") is None
    assert not store.commit_results(batch.id, "f2", staged, [4], [])


def test_lines_that_were_not_run_get_a_result_beside_those_that_have_one(store: Batches, batch: Batch):
    record(store, batch, 1, begin(store, batch, 1))
    assert not store.record_skipped(batch.id, "f2", "batch_expired", {2: b"e2\n"})
    assert store.record_skipped(batch.id, "f1", "batch_expired", {1: b"e1\n", 2: b"e2\n", 3: b"e3\n"})
    found = store.get(batch.id)
    assert (found.completed, found.failed, found.result_bytes) == (1, 2, 10)
    assert found.failures == {"batch_expired": 2}


def test_a_batch_without_its_input_makes_no_record_of_a_file(batch: Batch, redis: Redis):
    assert not redis.exists(keys.file(batch.input_file_id))


def test_a_state_is_left_once(store: Batches, batch: Batch, redis: Redis):
    begin(store, batch, 1)
    assert not store.change(batch, ("validating",), {"status": "finalizing"})
    assert not store.change(batch, ("in_progress",), {"status": "finalizing"}, holder="f2")
    assert store.change(batch, ("in_progress",), {"status": "finalizing"}, holder="f1", disowns=True)
    assert store.read_running(batch.id) == {}
    changes = {"status": "completed", "completed_at": 5}
    assert store.change(batch, ("finalizing",), changes, holder="f1", ends=True, event="it is done")
    assert store.list_active() == [] and redis.ttl(keys.batch(batch.id)) > 0
    assert b"batch_completed" in redis.xrange(keys.EVENTS)[0][1][b"e"]


def test_a_batch_is_cancelled_by_its_key_while_it_runs(store: Batches, batch: Batch):
    with pytest.raises(NotFound):
        store.cancel(batch.id, "k2")
    assert store.cancel(batch.id, "k1").status == "cancelling"
    assert store.cancel(batch.id, "k1").cancelling_at
    store.change(batch, ("cancelling",), {"status": "cancelled"}, ends=True)
    with pytest.raises(Conflict):
        store.cancel(batch.id, "k1")


def test_unfinished_batches_of_a_key_are_bounded(store: Batches, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batch_store, "MAX_UNFINISHED", 1)
    first = add(store)
    with pytest.raises(TooManyBatches):
        add(store)
    add(store, key="k2")
    store.change(first, ("validating",), {"status": "failed"}, ends=True)
    add(store)


def test_batches_are_listed_newest_first_page_by_page(store: Batches):
    ids = []
    for _ in range(5):
        ids.append(add(store).id)
        # Within the same second, but not the same millisecond.
        time.sleep(0.002)
    other = add(store, key="k2")
    assert [batch.id for batch in store.list_newest("k1", limit=2)] == ids[:-3:-1]
    assert [batch.id for batch in store.list_newest("k1", after=ids[3], limit=10)] == ids[2::-1]
    assert {batch.id for batch in store.list_newest(limit=10)} == {*ids, other.id}
    with pytest.raises(NotFound):
        store.list_newest("k1", after=other.id)
