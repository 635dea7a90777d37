"""The bytes of bodies in Redis are bounded and shared, and given back however a request ends."""

from collections.abc import Callable

import pytest
from redis import Redis
from rq.job import Job

from shared import keys
from shared.observability.counters import Counters
from shared.protocol.relay_queue import QueueFull, RelayQueue
from tests.builders import build_request
from tests.integration.harness import CHAT_BODY, WorkerHarness, collect_frames, streaming_body
from tests.waiting import eventually
from workers.process.front_monitor import FrontMonitor

MAX_BYTES = 1000


@pytest.fixture
def queue(redis: Redis) -> RelayQueue:
    return RelayQueue(redis, 100, MAX_BYTES)


def held_bytes(redis: Redis) -> int:
    """The sum that the scripts keep, which must be that of the sizes."""
    total = int(redis.hget("farm:body-sums", "total") or 0)
    assert total == sum(int(size.partition(b":")[0]) for size in redis.hvals("farm:body-sizes"))
    return total


def fill(queue: RelayQueue, key: str, size: int, **changes: str) -> int:
    """Enqueues bodies of this size until the queue is full; returns how many."""
    for number in range(100):
        try:
            queue.enqueue(build_request(f"req_{key}{number}", key=key, **changes), size * b"x")
        except QueueFull as error:
            assert "memory" in error.message
            return number
    return 100


def test_key_may_hold_as_much_as_is_left_free(redis: Redis, queue: RelayQueue):
    assert [fill(queue, key, 100) for key in ("a", "b", "c")] == [5, 3, 1]
    queue.enqueue(build_request("req_empty", key="a"), b"")
    assert held_bytes(redis) == 900


def test_small_bodies_are_bounded_by_the_queue_alone(redis: Redis):
    queue = RelayQueue(redis, 10, 400)
    for number in range(10):
        queue.enqueue(build_request(f"req_{number}"), 9 * b"x")
    assert held_bytes(redis) == 0
    with pytest.raises(QueueFull):
        queue.enqueue(build_request("req_more"), 9 * b"x")


def test_bytes_are_bounded_over_all_pools(queue: RelayQueue):
    assert [fill(queue, "a", 100), fill(queue, "b", 100, pool="other")] == [5, 3]


def test_body_as_large_as_the_room_is_admitted(queue: RelayQueue):
    queue.enqueue(build_request("req_1"), MAX_BYTES * b"x")


def cancel(redis: Redis, queue: RelayQueue) -> None:
    assert queue.cancel("default", "req_a0") == "withdrawn"


def lose_front(redis: Redis, queue: RelayQueue) -> None:
    # Subscribed to nothing.
    redis.zadd(keys.FRONTS, {"p": 1})
    monitor = FrontMonitor(redis, lambda: ["default"], Counters(), lambda _: None)
    eventually(lambda: monitor.check() or not redis.exists("rq:queue:chat:default"))


def delete_job(redis: Redis, queue: RelayQueue) -> None:
    """As the RQ dashboard does."""
    redis.lrem("rq:queue:chat:default", 1, "req_a0")
    redis.delete(Job.key_for("req_a0"))


def expire_body(redis: Redis, queue: RelayQueue) -> None:
    redis.delete(keys.body("req_a0"))


@pytest.mark.parametrize("end", [cancel, lose_front])
def test_room_is_given_back_at_once_by_the_farm_itself(
    redis: Redis, queue: RelayQueue, end: Callable[[Redis, RelayQueue], None]
):
    queue.enqueue(build_request("req_a0"), b"body")
    end(redis, queue)
    assert (held_bytes(redis), redis.exists(keys.body("req_a0"))) == (0, 0)


@pytest.mark.parametrize("end", [cancel, lose_front, delete_job, expire_body])
def test_room_is_given_back_when_a_waiting_request_ends(
    redis: Redis, queue: RelayQueue, end: Callable[[Redis, RelayQueue], None]
):
    assert fill(queue, "a", 500) == 1
    end(redis, queue)
    # The sums are corrected once a second.
    redis.hdel("farm:body-sums", "checked")
    assert fill(queue, "b", 500) == 1
    assert held_bytes(redis) == 500
    assert list(redis.scan_iter("farm:body:*")) == [b"farm:body:req_b0"]


@pytest.mark.parametrize("fault", ["", "server_error", "cut"])
def test_room_is_given_back_when_a_job_ends(redis: Redis, harness: WorkerHarness, fault: str):
    harness.queue = RelayQueue(redis, 10, MAX_BYTES)
    harness.upstream.faults(**({fault: 1} if fault else {}))
    collect_frames(harness.enqueue())
    eventually(lambda: redis.hlen("farm:body-sizes") == 0)
    assert held_bytes(redis) == 0


def test_body_is_deleted_with_the_first_byte_of_its_reply(redis: Redis, harness: WorkerHarness):
    harness.queue = RelayQueue(redis, 10, MAX_BYTES)
    harness.upstream.pace(chunks=1000, chunk_delay=0.3)
    mailbox = harness.enqueue(body=streaming_body(), stream=True)
    assert held_bytes(redis) > len(CHAT_BODY)
    mailbox.get(30)
    eventually(lambda: not redis.exists(keys.body("req_1")))
    assert (redis.exists(Job.key_for("req_1")), held_bytes(redis)) == (1, 0)
    mailbox.abandon()
