"""Each step of a line is taken once, and by the front that has the lease."""

from redis import Redis

from shared import clock, keys
from shared.batches.batch import Batch
from shared.batches.batch_lines import BatchLines, StagedResults
from shared.batches.batch_store import Batches
from shared.batches.running_line import NOBODY, begin_run
from tests.integration.shared.batches.batch_steps import begin, record


def test_a_line_begins_once_and_in_order(store: Batches, lines: BatchLines, batch: Batch):
    assert begin(lines, batch, 1)
    assert not begin(lines, batch, 1) and not begin(lines, batch, 3)
    assert begin(lines, batch, 2)
    assert (store.get(batch.id).last_line, store.get(batch.id).next_offset) == (2, 30)


def test_a_result_is_recorded_once(store: Batches, lines: BatchLines, batch: Batch):
    run = begin(lines, batch, 1)
    assert record(lines, batch, 1, run) and not record(lines, batch, 1, run)
    found = store.get(batch.id)
    assert (found.completed, found.input_tokens, found.result_bytes) == (1, 2, 4)
    assert lines.read_running(batch.id) == {}


def test_the_result_of_a_run_that_was_replaced_is_dropped(store: Batches, lines: BatchLines, batch: Batch):
    late = begin(lines, batch, 1)
    run = begin_run("f1", clock.now(), late.offset, late.length)
    assert lines.begin(batch.id, "f1", 1, run, instead_of=late)
    lines.release(batch.id, 1, late)
    assert not record(lines, batch, 1, late) and record(lines, batch, 1, run)
    assert store.get(batch.id).completed == 1


def test_a_line_with_a_result_never_begins_again(store: Batches, lines: BatchLines, batch: Batch, redis: Redis):
    run = begin(lines, batch, 1)
    record(lines, batch, 1, run)
    redis.hset(keys.batch_running(batch.id), "1", run.encode())
    assert not lines.begin(batch.id, "f1", 1, begin_run("f1", 0, 0, 0), instead_of=run)
    assert not record(lines, batch, 1, run)
    assert store.get(batch.id).completed == 1


def test_a_released_line_is_nobodys(lines: BatchLines, batch: Batch):
    run = begin(lines, batch, 1)
    lines.release(batch.id, 1, run)
    assert lines.read_running(batch.id)[1].front == NOBODY
    assert not record(lines, batch, 1, run)
    lines.release(batch.id, 1, run)


def test_a_part_is_the_same_until_it_is_committed(store: Batches, lines: BatchLines, batch: Batch):
    for number in (1, 2):
        record(lines, batch, number, begin(lines, batch, number), b"o%d\n" % number)
    staged = lines.stage_results(batch.id, "f1")
    record(lines, batch, 3, begin(lines, batch, 3), b"e3\n")
    assert lines.stage_results(batch.id, "f1") == staged and staged.results == [b"o1\n", b"o2\n"]

    assert not lines.commit_results(batch.id, "f1", StagedResults(staged.results[:1], "[]", "[]"), [4], [])
    assert lines.commit_results(batch.id, "f1", staged, [4], [])
    assert not lines.commit_results(batch.id, "f1", staged, [4], [])

    found = store.get(batch.id)
    assert (found.output_parts, found.error_parts, found.result_bytes) == ([4], [], 3)
    assert lines.stage_results(batch.id, "f1").results == [b"e3\n"]


def test_a_front_without_the_lease_stores_no_part(lines: BatchLines, batch: Batch):
    record(lines, batch, 1, begin(lines, batch, 1))
    staged = lines.stage_results(batch.id, "f1")
    assert lines.stage_results(batch.id, "f2") is None
    assert not lines.commit_results(batch.id, "f2", staged, [4], [])


def test_skipped_lines_get_a_result_beside_those_that_have_one(store: Batches, lines: BatchLines, batch: Batch):
    record(lines, batch, 1, begin(lines, batch, 1))
    assert not lines.record_skipped(batch.id, "f2", "batch_expired", {2: b"e2\n"})
    assert lines.record_skipped(batch.id, "f1", "batch_expired", {1: b"e1\n", 2: b"e2\n", 3: b"e3\n"})
    found = store.get(batch.id)
    assert (found.completed, found.failed, found.result_bytes) == (1, 2, 10)
    assert found.failures == {"batch_expired": 2}
