"""The records of batches: their states, lists and bounds."""

import time

import pytest
from redis import Redis

from shared import keys
from shared.batches import batch_store
from shared.batches.batch import Batch
from shared.batches.batch_lines import BatchLines
from shared.batches.batch_store import Batches, TooManyBatches
from shared.errors import Conflict, NotFound
from shared.files.file_store import FileNotFound
from tests.integration.shared.batches.batch_steps import add, begin, record


def test_a_batch_is_not_created_without_its_input(redis: Redis):
    with pytest.raises(FileNotFound):
        add(Batches(redis))
    assert redis.keys("farm:*") == []


def test_the_end_of_a_batch_makes_no_record_of_its_deleted_input(store: Batches, batch: Batch, redis: Redis):
    redis.delete(keys.file(batch.input_file_id))
    assert store.change(batch, ("in_progress",), {"status": "failed"}, ends=True)
    assert not redis.exists(keys.file(batch.input_file_id))


def test_the_files_of_its_results_are_reserved_for_a_batch_that_is_created(
    store: Batches, redis: Redis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(batch_store, "MAX_UNFINISHED", 1)
    batch = add(store)
    with pytest.raises(TooManyBatches):
        add(store, output_ttl=3600)
    reserved = redis.zrange(keys.RESERVED_FILES, 0, -1, withscores=True)
    assert reserved == [(id_, batch.expires_at + batch_store.RESERVED_SECONDS) for id_ in (b"file-2", b"file-3")]


def test_a_state_is_left_once(store: Batches, lines: BatchLines, batch: Batch, redis: Redis):
    begin(lines, batch, 1)
    assert not store.change(batch, ("validating",), {"status": "finalizing"})
    assert not store.change(batch, ("in_progress",), {"status": "finalizing"}, holder="f2")
    assert store.change(batch, ("in_progress",), {"status": "finalizing"}, holder="f1", disowns=True)
    assert lines.read_running(batch.id) == {}
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


def test_nothing_is_left_for_ever_of_a_batch_that_cannot_be_read(
    store: Batches, lines: BatchLines, batch: Batch, redis: Redis
):
    record(lines, batch, 1, begin(lines, batch, 1))
    begin(lines, batch, 2)
    redis.hset(keys.batch(batch.id), "total", "many")
    assert store.find(batch.id) is None
    store.forget(batch.id)
    assert store.list_active() == [] and not redis.exists(keys.active_batches(batch.key))
    found = redis.keys(f"farm:batch:{batch.id}*")
    assert len(found) == 5 and all(redis.ttl(name) > 0 for name in found)


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
