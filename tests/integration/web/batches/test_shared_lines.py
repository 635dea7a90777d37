"""Lines of batches share answers as other requests do: each paragraph is paid for once."""

import json
from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from shared import keys
from shared.batches.batch import Batch, new_batch_id
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.observability.request_log import LogFilter, RequestLog
from shared.settings.schema import PoolSettings
from tests import internals
from tests.integration.harness import WorkerHarness
from tests.integration.web.batches.batch_harness import BatchHarness
from tests.upstream import Upstream
from tests.waiting import eventually

StartFront = Callable[..., BatchHarness]
StartWorkers = Callable[..., WorkerHarness]


def build_input(count: int, distinct: int) -> bytes:
    """A batch's input in which each of the distinct paragraphs comes again and again."""
    lines = []
    for number in range(count):
        content = f"Translate paragraph {number % distinct}."
        body = {"model": "m", "messages": [{"role": "user", "content": content}]}
        lines.append({"custom_id": f"{number}", "method": "POST", "url": "/v1/chat/completions", "body": body})
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@pytest.fixture
def fronts(start_front: StartFront) -> Iterator[list[BatchHarness]]:
    """Two fronts that keep and join answers, and run the batches of one key."""
    fronts = [start_front(pools=(PoolSettings(cache_ttl=100),)) for _ in range(2)]
    yield fronts
    for front in fronts:
        eventually(lambda front=front: not front.services.runs.list_running())


def read_ids(front: BatchHarness, file_id: str) -> list[int]:
    return sorted(int(line["custom_id"]) for line in front.read_file(file_id))


def test_each_paragraph_is_paid_for_once(
    fronts: list[BatchHarness], start_harness: StartWorkers, upstream: Upstream, redis: Redis
):
    start_harness(credentials=4)
    front = fronts[0]
    front.start()
    first = front.wait_for_end(front.create(build_input(40, 10)))
    assert upstream.counters()["served"] == 10
    assert (first.status, first.total, first.completed) == ("completed", 40, 40)
    assert read_ids(front, first.output_file) == list(range(40))
    replies = {line["response"]["body"]["id"]: line for line in front.read_file(first.output_file)}
    assert len(replies) == 10

    second = front.wait_for_end(front.create(build_input(40, 10)))

    assert upstream.counters()["served"] == 10
    assert (second.status, second.completed, second.failed) == ("completed", 40, 0)
    assert read_ids(front, second.output_file) == list(range(40)) and front.read_file(second.error_file) == []
    assert first.input_tokens > 0 and (second.input_tokens, second.output_tokens) == (0, 0)
    front.services.log_buffer.flush()
    entries = [stored.entry for stored in RequestLog(redis).read_newest_first(LogFilter())]
    shared = [entry for entry in entries if entry.end in ("hit", "joined")]
    assert len(shared) == 70 and all(entry.prompt_tokens + entry.completion_tokens == 0 for entry in shared)


def begin_twice(fronts: list[BatchHarness], unsealer: Unsealer) -> list[Batch]:
    """A batch of three lines in each front: those of the second one follow those of the first, which wait."""
    Credentials(fronts[0].redis).add("default", "token")
    batches = []
    for front in fronts:
        batch_id = new_batch_id()
        front.batches.leases.hold(batch_id, front.batches.front_id)
        batches.append(fronts[0].create(build_input(3, 3), id=batch_id))
        front.start()
        eventually(lambda front=front: len(front.services.runs.followers) == 3)
    return batches


def test_lines_follow_those_of_another_front(
    fronts: list[BatchHarness], unsealer: Unsealer, start_harness: StartWorkers, upstream: Upstream
):
    batches = begin_twice(fronts, unsealer)
    start_harness(credentials=2)
    ended = [fronts[0].wait_for_end(batch) for batch in batches]
    assert [read_ids(fronts[0], batch.output_file) for batch in ended] == [[0, 1, 2]] * 2
    assert upstream.counters()["served"] == 3
    assert ended[0].input_tokens > 0 and ended[1].input_tokens == 0


@pytest.mark.parametrize("is_cancelled_first", [True, False])
def test_cancelled_lines_go_on_for_those_that_share_them(
    fronts: list[BatchHarness],
    unsealer: Unsealer,
    start_harness: StartWorkers,
    upstream: Upstream,
    is_cancelled_first: bool,
):
    batches = begin_twice(fronts, unsealer)
    cancelled, other = batches if is_cancelled_first else batches[::-1]
    fronts[0].batches.store.cancel(cancelled.id)
    assert fronts[0].wait_for_end(cancelled).status == "cancelled"
    start_harness(credentials=2)
    assert read_ids(fronts[0], fronts[0].wait_for_end(other).output_file) == [0, 1, 2]
    assert upstream.counters()["served"] == 3


def test_line_whose_front_dies_is_run_by_the_one_that_followed_it(
    fronts: list[BatchHarness], unsealer: Unsealer, start_harness: StartWorkers, upstream: Upstream, redis: Redis
):
    """Its body was dropped long ago, and is read again."""
    batches = begin_twice(fronts, unsealer)
    internals.stop_batch_runs(fronts[0].runner)
    fronts[0].runner.stop()
    redis.delete(*redis.keys("rq:queue:*"))
    redis.set(keys.front_gone(fronts[0].batches.front_id), 1)
    eventually(lambda: redis.llen("rq:queue:batch:default") == 3)
    start_harness(credentials=2)
    ended = fronts[1].wait_for_end(batches[1])
    assert read_ids(fronts[1], ended.output_file) == [0, 1, 2] and ended.input_tokens > 0
    internals.kill_batch_lines(fronts[0].runner)


def test_lines_of_a_pool_without_sharing_are_all_run(
    start_front: StartFront, start_harness: StartWorkers, upstream: Upstream
):
    start_harness(credentials=2)
    front = start_front()
    front.start()
    batch = front.wait_for_end(front.create(build_input(6, 2)))
    assert batch.completed == upstream.counters()["served"] == 6
