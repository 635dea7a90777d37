"""A front runs the lines of a batch on real workers."""

import json
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from redis import Redis

from shared import clock, keys
from shared.api_keys.store import ApiKeys
from shared.batches.batch import Batch
from shared.credentials.private import PrivateCredentials, caller_id, remove_credential
from shared.credentials.store import Credentials
from shared.files.part_store import FileStoreDown, FileStoreFull
from shared.names import private_credential_id
from shared.settings.schema import PoolSettings
from tests import internals
from tests.integration.harness import WorkerHarness
from tests.integration.web.batches.batch_harness import BatchHarness, build_line, build_lines
from tests.upstream import Upstream
from tests.waiting import eventually
from web.batches import batch_run, line_run, skipped_lines

StartFront = Callable[..., BatchHarness]
StartWorkers = Callable[..., WorkerHarness]


def list_ids(lines: list[dict[str, Any]]) -> list[str]:
    return sorted(line["custom_id"] for line in lines)


def expect_ids(count: int) -> list[str]:
    return sorted(f"line-{number}" for number in range(count))


def test_a_batch_ends_with_one_result_for_each_line(
    start_front: StartFront, start_harness: StartWorkers, upstream: Upstream, redis: Redis
):
    start_harness(credentials=4)
    front = start_front()
    front.start()

    batch = front.wait_for_end(front.create(build_lines(40)))

    lines = front.read_file(batch.output_file)
    assert batch.status == "completed" and (batch.total, batch.completed, batch.failed) == (40, 40, 0)
    assert list_ids(lines) == expect_ids(40)
    assert all(line["response"]["status_code"] == 200 and line["error"] is None for line in lines)
    assert batch.input_tokens == sum(line["response"]["body"]["usage"]["prompt_tokens"] for line in lines) > 0
    assert upstream.counters()["served"] == 40
    assert front.read_file(batch.error_file) == []
    assert set(redis.keys("farm:batch:*")) <= {keys.batch(batch.id).encode(), keys.batch_lease(batch.id).encode()}


def test_an_invalid_input_fails_the_batch_without_a_request(start_front: StartFront, upstream: Upstream):
    front = start_front()
    front.start()
    batch = front.wait_for_end(front.create(build_line("a") + build_line("a", url="/v1/embeddings") + b"{\n"))
    found = [(error["code"], error["line"]) for error in batch.errors]
    assert batch.status == "failed" and batch.failed_at and found == [("invalid_url", 2), ("invalid_json_line", 3)]
    assert upstream.counters()["served"] == 0


def test_a_line_that_the_upstream_refuses_is_in_the_error_file(
    start_front: StartFront, start_harness: StartWorkers, upstream: Upstream
):
    start_harness(credentials=2)
    upstream.faults(poison=422)
    front = start_front()
    front.start()
    batch = front.wait_for_end(front.create(build_lines(3) + build_line("bad", model="poison")))
    (error,) = front.read_file(batch.error_file)
    assert batch.status == "completed" and (batch.completed, batch.failed) == (3, 1)
    assert batch.failures == {"http_422": 1}
    assert error["custom_id"] == "bad" and error["response"]["status_code"] == 422
    assert error["response"]["body"]["error"]["message"] and list_ids(front.read_file(batch.output_file)) == expect_ids(
        3
    )


def test_a_line_that_the_upstream_fails_is_tried_again(
    start_front: StartFront, start_harness: StartWorkers, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(line_run, "FIRST_PAUSE_SECONDS", 0.1)
    start_harness(credentials=2, max_attempts=1)
    upstream.faults(poison=500)
    front = start_front()
    front.start()
    batch = front.create(build_line("bad", model="poison"))
    eventually(lambda: upstream.counters().get("fault_poison"))
    upstream.faults()
    batch = front.wait_for_end(batch)
    assert (batch.status, batch.completed, batch.failed) == ("completed", 1, 0)


def test_refusals_of_the_farm_are_waited_out(
    start_front: StartFront, start_harness: StartWorkers, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(line_run, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(line_run, "MAX_PAUSE_SECONDS", 0.2)
    start_harness(credentials=3)
    front = start_front(max_queue=1)
    ApiKeys(front.redis).update(front.key.id, {"concurrency": 1, "max_waiting": 0})
    front.start()
    batch = front.wait_for_end(front.create(build_lines(12)))
    assert (batch.status, batch.completed, batch.failed) == ("completed", 12, 0)


def test_no_account_is_waited_out(
    start_front: StartFront, start_harness: StartWorkers, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(line_run, "MAX_PAUSE_SECONDS", 0.2)
    front = start_front()
    front.start()
    batch = front.create(build_lines(2))
    eventually(lambda: front.get(batch).last_line == 2)
    eventually(lambda: front.get(batch).hindrance == "no_worker_process")
    front.redis.zadd(keys.PROCESSES, {"p": clock.now()})
    eventually(lambda: front.get(batch).hindrance == "no_account")
    start_harness(credentials=2)
    assert front.wait_for_end(batch).completed == 2


def test_a_cancelled_batch_ends_within_seconds_with_what_is_done(
    start_front: StartFront, start_harness: StartWorkers, upstream: Upstream
):
    start_harness(credentials=2, first_byte_timeout=60.0)
    front = start_front()
    front.start()
    batch = front.create(build_lines(300))
    eventually(lambda: front.get(batch).completed >= 2)
    upstream.faults(hang_headers=1)
    eventually(lambda: internals.count_batch_lines(front.runner) == 8)
    assert front.batches.store.cancel(batch.id, front.key.id).status == "cancelling"

    batch = front.wait_for_end(batch, within=10)

    done, skipped = front.read_file(batch.output_file), front.read_file(batch.error_file)
    assert batch.status == "cancelled" and batch.cancelled_at and batch.cancelling_at
    assert len(done) == batch.completed and len(skipped) == batch.failed and batch.completed + batch.failed == 300
    assert list_ids(done + skipped) == expect_ids(300)
    assert {line["error"]["code"] for line in skipped} == {"batch_cancelled"}
    assert eventually(lambda: front.redis.llen("rq:queue:batch:default") == 0)


def test_an_expired_batch_returns_what_is_done(
    start_front: StartFront, start_harness: StartWorkers, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(skipped_lines, "LINES_AT_ONCE", 30)
    start_harness(credentials=2, first_byte_timeout=60.0)
    front = start_front()
    front.start()
    batch = front.create(build_lines(300))
    eventually(lambda: front.get(batch).completed >= 2)
    upstream.faults(hang_headers=1)
    front.redis.hset(keys.batch(batch.id), "expires_at", int(clock.now()))

    batch = front.wait_for_end(batch, within=10)

    done, skipped = front.read_file(batch.output_file), front.read_file(batch.error_file)
    assert batch.status == "expired" and batch.expired_at and len(done) == batch.completed >= 2
    assert list_ids(done + skipped) == expect_ids(300)
    assert {line["error"]["code"] for line in skipped} == {"batch_expired"}
    assert batch.failures == {"batch_expired": len(skipped)}


def test_a_revoked_key_cancels_its_batch(start_front: StartFront, start_harness: StartWorkers, upstream: Upstream):
    start_harness(first_byte_timeout=60.0)
    upstream.faults(hang_headers=1)
    front = start_front()
    front.start()
    batch = front.create(build_lines(3))
    eventually(lambda: front.get(batch).last_line == 3)
    ApiKeys(front.redis).revoke(front.key.id)
    batch = front.wait_for_end(batch, within=15)
    assert (batch.status, batch.reason) == ("cancelled", "key_revoked")


def create_private(front: BatchHarness, count: int = 3) -> Batch:
    """A batch of a caller with its own refresh token, whose lines are not run."""
    pool = PrivateCredentials(front.redis).add("default", "a-token", 1)
    return front.create(build_lines(count), key=caller_id(private_credential_id(pool)), pool=pool)


@pytest.mark.usefixtures("unsealer")
@pytest.mark.parametrize("end", ["dead", "removed", "taken no more"])
def test_a_batch_is_cancelled_with_its_callers_credential(start_front: StartFront, end: str):
    front = start_front(pools=(PoolSettings(private_credentials=end != "taken no more"),))
    front.start()
    batch = create_private(front)
    credential_id = private_credential_id(batch.pool)
    if end == "dead":
        eventually(lambda: front.get(batch).last_line == 3)
        Credentials(front.redis).set_state(batch.pool, credential_id, "dead", "invalid_grant")
    elif end == "removed":
        eventually(lambda: front.get(batch).last_line == 3)
        assert remove_credential(front.redis, batch.pool, credential_id, "operator")
    batch = front.wait_for_end(batch, within=15)
    assert (batch.status, batch.reason) == ("cancelled", "credential_gone")


@pytest.mark.usefixtures("unsealer")
def test_a_batch_waits_for_its_callers_disabled_credential(start_front: StartFront):
    front = start_front(pools=(PoolSettings(private_credentials=True),))
    front.start()
    batch = create_private(front)
    eventually(lambda: front.get(batch).status == "in_progress")
    Credentials(front.redis).set_state(batch.pool, private_credential_id(batch.pool), "disabled", "by a person")
    gevent.sleep(0.4)
    assert front.get(batch).status == "in_progress"


@pytest.mark.usefixtures("unsealer")
def test_a_private_caller_has_the_idle_time_to_get_its_results(start_front: StartFront):
    front = start_front(pools=(PoolSettings(private_credentials=True),))
    front.start()
    batch = create_private(front)
    front.redis.zadd(keys.PRIVATE_POOLS, {batch.pool: 1})
    front.batches.store.cancel(batch.id)
    front.wait_for_end(batch, within=15)
    assert front.redis.zscore(keys.PRIVATE_POOLS, batch.pool) >= batch.created_at


def test_what_keeps_a_batch_from_going_on_is_told_until_it_has_passed(
    start_front: StartFront, start_harness: StartWorkers, monkeypatch: pytest.MonkeyPatch
):
    """A disabled key pauses it; then its input can't be read; then its results find no room."""
    monkeypatch.setattr(batch_run, "FIRST_PAUSE_SECONDS", 0.1)
    start_harness()
    front = start_front()
    store, broken = front.batches.files.store, dict[str, Exception]()

    def refuse_if_broken(name: str) -> None:
        method = getattr(store, name)

        def call(*args: Any) -> Any:
            if name in broken:
                raise broken[name]
            return method(*args)

        monkeypatch.setattr(store, name, call)

    def is_hindered(status: str, hindrance: str) -> bool:
        return (front.get(batch).status, front.get(batch).hindrance) == (status, hindrance)

    ApiKeys(front.redis).update(front.key.id, {"enabled": False})
    batch = front.create(build_lines(3))
    refuse_if_broken("get")
    refuse_if_broken("put")
    front.start()
    eventually(lambda: is_hindered("in_progress", "key_disabled"))
    assert front.get(batch).last_line == 0

    broken |= {"get": FileStoreDown("no answer"), "put": FileStoreFull("no room")}
    ApiKeys(front.redis).update(front.key.id, {"enabled": True})
    eventually(lambda: is_hindered("in_progress", "file_store_away"))
    del broken["get"]
    eventually(lambda: is_hindered("finalizing", "file_store_full"))
    broken.clear()
    assert front.wait_for_end(batch).completed == 3


def test_key_without_quota_holds_its_batch_up_and_is_told(
    start_front: StartFront, start_harness: StartWorkers, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(line_run, "MAX_PAUSE_SECONDS", 0.2)
    start_harness(credentials=2)
    front = start_front()
    front.redis.zadd(keys.PROCESSES, {"p": clock.now()})
    ApiKeys(front.redis).update(front.key.id, {"quota_requests": 2})
    front.start()
    batch = front.create(build_lines(6))
    eventually(lambda: front.get(batch).hindrance == "key_over_quota")
    assert front.get(batch).completed == 2
    ApiKeys(front.redis).update(front.key.id, {"quota_requests": 0})
    assert front.wait_for_end(batch).completed == 6


def test_another_front_runs_the_lines_of_one_that_has_died(
    start_front: StartFront, start_harness: StartWorkers, upstream: Upstream
):
    """The first front has begun lines and has a result on its way; it is dead as far as the farm knows."""
    start_harness(credentials=2)
    first, second = start_front(), start_front()
    batch = first.create(build_lines(10))
    late = first.begin_as_dead_front(batch, len(build_line("line-0")))
    first.batches.leases.give_up(batch.id, "dead")

    second.start()
    batch = second.wait_for_end(batch)

    assert not first.batches.lines.record_result(batch.id, 2, late[1], "completed", b"o{}\n", {})
    assert list_ids(second.read_file(batch.output_file)) == expect_ids(10)
    assert (batch.completed, upstream.counters()["served"]) == (10, 9)


def test_a_retiring_front_ends_its_lines_while_another_goes_on(
    start_front: StartFront, start_harness: StartWorkers, upstream: Upstream
):
    start_harness(credentials=2)
    upstream.pace(delay=0.1)
    first, second = start_front(), start_front()
    first.start()
    batch = first.create(build_lines(20))
    eventually(lambda: first.get(batch).completed >= 4)
    first.runner.stop()
    eventually(lambda: first.redis.get(keys.batch_lease(batch.id)) is None)
    second.start()

    batch = second.wait_for_end(batch)

    eventually(lambda: not first.runner.is_busy)
    assert list_ids(second.read_file(batch.output_file)) == expect_ids(20)
    assert upstream.counters()["served"] == 20


def test_a_front_that_has_lost_its_lease_unawares_doubles_nothing(
    start_front: StartFront, start_harness: StartWorkers, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
):
    """As if it had been frozen: both believe that they run the batch."""
    monkeypatch.setattr("web.batches.batch_lease.BatchLease.renew", lambda _: gevent.sleep(3600))
    start_harness(credentials=2)
    upstream.pace(delay=0.1)
    first, second = start_front(), start_front()
    first.start()
    batch = first.create(build_lines(24))
    eventually(lambda: first.get(batch).completed >= 4)
    first.redis.delete(keys.batch_lease(batch.id))
    first.redis.set(keys.front_gone(first.batches.front_id), 1)
    assert second.batches.leases.hold(batch.id, second.batches.front_id)
    first.redis.persist(keys.batch_lease(batch.id))
    second.start()

    batch = second.wait_for_end(batch)

    assert list_ids(second.read_file(batch.output_file)) == expect_ids(24)
    assert batch.completed == 24 and upstream.counters()["served"] < 24 + 20


def test_results_reach_the_store_in_parts_and_redis_holds_few(
    start_front: StartFront, start_harness: StartWorkers, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("web.batches.background_flush.FLUSH_BYTES", 5000)
    start_harness(credentials=4)
    upstream.pace(delay=0.05)
    front = start_front()
    front.start()
    batch, most = front.create(build_lines(60)), 0
    while front.get(batch).is_unfinished:
        most = max(most, sum(map(len, front.redis.lrange(keys.batch_results(batch.id), 0, -1))))
        gevent.sleep(0.01)
    batch = front.get(batch)
    assert batch.completed == 60 and len(batch.output_parts) > 1 and most < sum(batch.output_parts)
    assert list_ids(front.read_file(batch.output_file)) == expect_ids(60)


def test_a_full_store_holds_a_batch_up_until_there_is_room(
    start_front: StartFront, start_harness: StartWorkers, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("web.batches.background_flush.FLUSH_BYTES", 1000)
    monkeypatch.setattr("web.batches.progress.hindrance.MAX_RESULT_BYTES", 5000)
    start_harness(credentials=2)
    upstream.pace(delay=0.03)
    front = start_front()
    put, is_full = front.batches.files.store.put, True

    def put_if_room(name: str, data: bytes) -> None:
        if is_full:
            raise FileStoreFull("no room")
        put(name, data)

    batch = front.create(build_lines(100))
    monkeypatch.setattr(front.batches.files.store, "put", put_if_room)
    front.start()
    eventually(lambda: front.get(batch).result_bytes > 5000)
    eventually(lambda: not front.batches.lines.read_running(batch.id))
    eventually(lambda: front.get(batch).hindrance == "results_wait")
    assert front.get(batch).last_line < 100

    is_full = False
    upstream.pace()
    batch = front.wait_for_end(batch)
    assert list_ids(front.read_file(batch.output_file)) == expect_ids(100)


def test_a_part_that_was_put_and_not_committed_is_not_doubled(
    start_front: StartFront, start_harness: StartWorkers, monkeypatch: pytest.MonkeyPatch
):
    """A front dies between the two steps: its successor repeats the first one."""
    monkeypatch.setattr("web.batches.background_flush.FLUSH_BYTES", 2000)
    start_harness(credentials=2)
    first, second = start_front(), start_front()
    monkeypatch.setattr(first.batches.lines, "commit_results", lambda *_: False)
    first.start()
    batch = first.create(build_lines(30))
    eventually(lambda: first.get(batch).staged)
    first.runner.stop()
    second.start()
    batch = second.wait_for_end(batch)
    assert list_ids(second.read_file(batch.output_file)) == expect_ids(30)


@pytest.mark.parametrize("count", [12, 30], ids=["at the end of the input", "in the middle"])
def test_what_redis_has_lost_is_run_again(
    start_front: StartFront, start_harness: StartWorkers, upstream: Upstream, redis: Redis, count: int
):
    """A crash of Redis loses the last second: lines that have begun, and the results of others."""
    start_harness(credentials=2)
    upstream.pace(delay=0.1)
    front = start_front()
    front.start()
    batch = front.create(build_lines(count))
    eventually(lambda: front.get(batch).completed >= 2)
    names = [
        keys.batch(batch.id),
        keys.batch_done(batch.id),
        keys.batch_running(batch.id),
        keys.batch_results(batch.id),
    ]
    with redis.pipeline() as pipe:
        for name in names:
            pipe.dump(name)
        saved = pipe.execute()
    last_line = front.get(batch).last_line
    eventually(lambda: front.get(batch).last_line >= last_line + 2)
    with redis.pipeline() as pipe:
        for name, value in zip(names, saved, strict=True):
            pipe.delete(name)
            if value:
                pipe.restore(name, 0, value)
        pipe.execute()

    batch = front.wait_for_end(batch)

    assert list_ids(front.read_file(batch.output_file)) == expect_ids(count)
    assert batch.completed == count


def test_batches_of_two_keys_share_the_accounts(
    start_front: StartFront, start_harness: StartWorkers, upstream: Upstream
):
    start_harness(credentials=2)
    upstream.pace(delay=0.05)
    front, other = start_front(), start_front()
    front.start()
    large = front.create(build_lines(200))
    eventually(lambda: front.get(large).completed >= 10)
    small = other.create(build_lines(10))
    other.start()
    small = other.wait_for_end(small)
    assert small.completed == 10 and front.get(large).completed < 150
    front.batches.store.cancel(large.id)
    front.wait_for_end(large)


@pytest.mark.usefixtures("unsealer")
def test_batches_with_lines_to_begin_share_the_accounts_of_their_pool(
    start_front: StartFront, start_harness: StartWorkers, upstream: Upstream
):
    start_harness(credentials=6, first_byte_timeout=60.0)
    upstream.faults(hang_headers=1)
    front = start_front(pools=(PoolSettings(private_credentials=True),))
    front.start()
    private, begun = create_private(front, 20), front.create(build_lines(3))
    eventually(lambda: front.get(private).last_line == 8 and front.get(begun).last_line == 3)
    first = front.create(build_lines(40))
    eventually(lambda: front.get(first).last_line == 12)
    second = front.create(build_lines(40))
    eventually(lambda: front.get(second).last_line == 8)
    gevent.sleep(0.3)
    assert [front.get(batch).last_line for batch in (first, second)] == [12, 8]
    for batch in (private, begun, first, second):
        front.batches.store.cancel(batch.id)
        front.wait_for_end(batch)


def test_the_input_is_not_kept_in_memory(start_front: StartFront, start_harness: StartWorkers, upstream: Upstream):
    """A line is read when its turn comes, and its body is not kept while it waits."""
    start_harness(first_byte_timeout=60.0)
    upstream.faults(hang_headers=1)
    front = start_front()
    front.start()
    batch = front.create(b"".join(build_line(f"line-{n}", pad="x" * 10_000) for n in range(40)))
    eventually(lambda: internals.count_batch_lines(front.runner) == 8)
    eventually(lambda: all(line.data is None for line in internals.list_batch_lines(front.runner)))
    assert front.get(batch).last_line == 8
    front.batches.store.cancel(batch.id)
    front.wait_for_end(batch)


def test_long_lines_are_run_and_listed_when_they_were_not(
    start_front: StartFront, start_harness: StartWorkers, upstream: Upstream
):
    start_harness(credentials=2, first_byte_timeout=60.0)
    front = start_front()
    front.start()
    lines = b"".join(build_line(f"line-{number}", pad="x" * 400_000) for number in range(6))
    batch = front.wait_for_end(front.create(lines))
    assert list_ids(front.read_file(batch.output_file)) == expect_ids(6)
    assert front.services.body_memory.reserved == 0

    upstream.faults(hang_headers=1)
    batch = front.create(lines)
    eventually(lambda: front.get(batch).last_line == 6)
    front.batches.store.cancel(batch.id)
    batch = front.wait_for_end(batch)
    assert list_ids(front.read_file(batch.error_file)) == expect_ids(6)


def test_lines_of_other_endpoints_are_run(start_front: StartFront, start_harness: StartWorkers):
    start_harness(credentials=2)
    front = start_front()
    front.start()
    line = {"custom_id": "e", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": "text"}}
    batch = front.wait_for_end(front.create(json.dumps(line).encode(), endpoint="/v1/embeddings"))
    (found,) = front.read_file(batch.output_file)
    assert found["response"]["body"]["data"] and batch.output_tokens == 0
