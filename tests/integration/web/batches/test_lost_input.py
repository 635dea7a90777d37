"""The input of a batch is deleted before the batch has ended."""

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from shared import clock, keys
from shared.api_keys.store import ApiKeys
from shared.batches.batch import Batch
from shared.batches.running_line import begin_run
from shared.files.part_store import PartNotFound
from tests import internals
from tests.integration.harness import WorkerHarness
from tests.integration.web.batches.batch_harness import BatchHarness, build_lines
from tests.integration.web.batches.conftest import StartFront
from tests.upstream import Upstream
from tests.waiting import eventually

StartWorkers = Callable[..., WorkerHarness]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs are read a few lines at a time."""
    monkeypatch.setattr("shared.files.file_store.PIECE_BYTES", 1000)


def delete_input(front: BatchHarness, batch: Batch) -> None:
    files = front.batches.files
    assert files.delete(files.find(batch.input_file_id))


def list_ids(front: BatchHarness, batch: Batch) -> list[str]:
    return [line["custom_id"] for id_ in (batch.output_file, batch.error_file) for line in front.read_file(id_)]


def expect_ids(count: int) -> set[str]:
    return {f"line-{number}" for number in range(count)}


def test_lines_that_have_begun_end_and_the_error_says_which_have_not(
    start_front: StartFront, start_harness: StartWorkers, upstream: Upstream
):
    start_harness(credentials=2)
    upstream.pace(delay=0.1)
    front = start_front()
    front.start()
    batch = front.create(build_lines(300))
    eventually(lambda: front.get(batch).completed >= 2)
    delete_input(front, batch)

    batch = front.wait_for_end(batch)

    (error,) = batch.errors
    assert (batch.status, error["code"], error["param"]) == ("failed", "input_file_gone", "input_file_id")
    assert error["line"] == batch.last_line + 1 < 300 and str(batch.last_line) in error["message"]
    assert batch.completed == batch.last_line == upstream.counters()["served"]
    found = list_ids(front, batch)
    assert len(found) == batch.last_line and set(found) == expect_ids(batch.last_line)


def test_a_batch_all_of_whose_lines_have_begun_completes(
    start_front: StartFront, start_harness: StartWorkers, upstream: Upstream
):
    start_harness(credentials=2)
    upstream.pace(delay=0.2)
    front = start_front()
    front.start()
    batch = front.create(build_lines(8))
    eventually(lambda: front.get(batch).last_line == 8)
    delete_input(front, batch)
    batch = front.wait_for_end(batch)
    assert (batch.status, batch.completed, batch.errors) == ("completed", 8, [])


def test_lines_that_nobody_runs_any_more_are_named_by_their_number(start_front: StartFront):
    """Their front has died; the next one can't read what they were."""
    front = start_front()
    batch = front.create(build_lines(10))
    runs = front.begin_as_dead_front(batch)
    delete_input(front, batch)
    front.batches.leases.give_up(batch.id, "dead")
    front.start()

    batch = front.wait_for_end(batch)

    lost = [line["error"] for line in front.read_file(batch.error_file)]
    assert (batch.status, batch.completed, batch.failed) == ("failed", 1, 2)
    assert batch.failures == {"input_file_gone": 2} and batch.errors[0]["line"] == 4
    assert {error["code"] for error in lost} == {"input_file_gone"}
    assert sorted(error["message"].partition(" of")[0] for error in lost) == ["Line 2", "Line 3"]
    assert not front.batches.lines.record_result(batch.id, 2, runs[1], "completed", b"o{}\n", {})


def test_a_batch_that_was_not_validated_fails(start_front: StartFront):
    front = start_front()
    batch = front.create(build_lines(3))
    delete_input(front, batch)
    front.start()
    batch = front.wait_for_end(batch)
    assert (batch.status, batch.total) == ("failed", 0)
    assert [(error["code"], error["line"]) for error in batch.errors] == [("input_file_gone", None)]


@pytest.mark.parametrize("status", ["cancelled", "expired"])
def test_a_batch_that_ends_without_it_names_the_lines_in_flight(
    start_front: StartFront, start_harness: StartWorkers, upstream: Upstream, redis: Redis, status: str
):
    """Callers delete what they no longer need as soon as they have cancelled."""
    start_harness(credentials=2, first_byte_timeout=60.0)
    front = start_front()
    front.start()
    batch = front.create(build_lines(300))
    eventually(lambda: front.get(batch).completed >= 2)
    upstream.faults(hang_headers=1)
    eventually(lambda: internals.count_batch_lines(front.runner) == 8)
    eventually(lambda: all(line.data is None for line in internals.list_batch_lines(front.runner)))
    delete_input(front, batch)
    if status == "cancelled":
        front.batches.store.cancel(batch.id)
    else:
        redis.hset(f"farm:batch:{batch.id}", "expires_at", int(clock.now()))

    batch = front.wait_for_end(batch)

    found = list_ids(front, batch)
    assert (batch.status, [error["code"] for error in batch.errors]) == (status, ["input_file_gone"])
    assert batch.completed + batch.failed == len(found) == batch.last_line
    assert set(found) == expect_ids(batch.last_line)
    assert batch.failures == {f"batch_{status}": batch.failed}


def test_lines_that_another_front_runs_are_named_by_their_number(
    start_front: StartFront, monkeypatch: pytest.MonkeyPatch
):
    """Also when Redis was away for a moment after they had been disowned."""
    front = start_front()
    batch, lines = front.create(build_lines(10)), front.batches.lines
    record, failures = lines.record_skipped, [RedisConnectionError("away")]

    def record_on_second_try(*args: Any) -> bool:
        if failures:
            raise failures.pop()
        return record(*args)

    monkeypatch.setattr(lines, "record_skipped", record_on_second_try)
    front.batches.leases.hold(batch.id, "retiring")
    front.batches.store.change(batch, ("validating",), {"status": "in_progress", "total": 10})
    front.redis.zadd(keys.FRONTS, {"retiring": clock.now()})
    for number in (1, 2):
        assert lines.begin(batch.id, "retiring", number, begin_run("retiring", clock.now(), 0, 0), after=number - 1)
    front.batches.leases.give_up(batch.id, "retiring")
    delete_input(front, batch)
    front.batches.store.cancel(batch.id)
    front.start()

    batch = front.wait_for_end(batch)

    found = [line["error"]["message"].partition(" of")[0] for line in front.read_file(batch.error_file)]
    assert (batch.status, batch.failed, found) == ("cancelled", 2, ["Line 1", "Line 2"])


def test_lines_before_a_part_that_is_gone_are_named(start_front: StartFront, monkeypatch: pytest.MonkeyPatch):
    front = start_front()
    batch = front.create(build_lines(30), status="cancelling", total=30)
    get = front.batches.files.store.get

    def lose_all_but_the_first(name: str, start: int = 0, end: int | None = None) -> bytes:
        if start and name.startswith(batch.input_file_id):
            raise PartNotFound(name)
        return get(name, start, end)

    monkeypatch.setattr(front.batches.files.store, "get", lose_all_but_the_first)
    front.start()
    batch = front.wait_for_end(batch)
    assert (batch.status, [error["code"] for error in batch.errors]) == ("cancelled", ["input_file_gone"])
    assert 1 < batch.failed < 30 and set(list_ids(front, batch)) == expect_ids(batch.failed)


def test_a_batch_whose_key_is_revoked_is_cancelled_though_its_files_go_first(start_front: StartFront, redis: Redis):
    front = start_front()
    batch = front.create(build_lines(3))
    ApiKeys(redis).revoke(front.key.id)
    delete_input(front, batch)
    front.start()
    batch = front.wait_for_end(batch)
    assert (batch.status, batch.reason, batch.errors) == ("cancelled", "key_revoked", [])
