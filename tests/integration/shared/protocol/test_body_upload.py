"""A large body reaches its worker in pieces, whole whatever happens to them on the way."""

import json
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.protocol.large_body import MAX_PIECE_BYTES, LargeBody
from shared.protocol.relay_queue import QueueFull, RelayQueue
from simulator.responses import translate
from tests.builders import build_request
from tests.integration.front_harness import FrontHarness
from tests.integration.harness import WorkerHarness
from tests.integration.workers.jobs.bookkeeping_harness import BookkeepingHarness

#: No two pieces of it are alike.
BODY = b"".join(b"%09d\n" % number for number in range(150_000))
UPLOAD, STORED = keys.upload("req_1"), keys.body("req_1")


@pytest.fixture
def queue(redis: Redis) -> RelayQueue:
    return RelayQueue(redis, max_queue=1)


def test_stored_body_lives_as_long_as_a_small_one(redis: Redis, queue: RelayQueue):
    queue.enqueue(build_request(), LargeBody(BODY))
    lifetime = redis.pttl(STORED)
    assert redis.get(STORED) == BODY
    assert redis.keys("farm:upload:*") == []
    redis.flushall()
    queue.enqueue(build_request(), b"small")
    assert abs(lifetime - redis.pttl(STORED)) < 60_000


def test_worker_reads_a_large_body_whole(redis: Redis):
    harness = BookkeepingHarness(redis)
    redis.set(STORED, BODY)
    assert harness.start().body == BODY


def test_second_try_neither_harms_the_body_nor_leaves_anything(redis: Redis, queue: RelayQueue):
    queue.enqueue(build_request(), LargeBody(BODY))
    queue.enqueue(build_request(), LargeBody(BODY))
    assert redis.get(STORED) == BODY
    assert redis.keys("farm:upload:*") == []


def test_refused_body_is_not_kept(redis: Redis, queue: RelayQueue):
    queue.enqueue(build_request("req_0"), b"small")
    with pytest.raises(QueueFull):
        queue.enqueue(build_request(), LargeBody(BODY))
    assert redis.keys("farm:upload:*") == []
    assert not redis.exists(STORED)


def test_large_body_counts_towards_the_bytes_of_all(redis: Redis):
    queue = RelayQueue(redis, 100, 2 * len(BODY))
    queue.enqueue(build_request(), LargeBody(BODY))
    assert redis.hget(keys.BODY_SUMS, "total") == str(len(BODY)).encode()
    with pytest.raises(QueueFull):
        queue.enqueue(build_request("req_2"), LargeBody(2 * BODY))


def test_upload_that_is_lost_is_an_error_and_no_job(redis: Redis, queue: RelayQueue, monkeypatch: pytest.MonkeyPatch):
    store = queue._upload.store  # noqa: SLF001

    def store_and_lose(key: str, body: LargeBody) -> None:
        store(key, body)
        redis.delete(key)

    monkeypatch.setattr(queue._upload, "store", store_and_lose)  # noqa: SLF001
    with pytest.raises(RedisError):
        queue.enqueue(build_request(), LargeBody(BODY))
    assert not redis.exists("rq:job:req_1")


def test_pieces_of_an_earlier_try_that_come_late_change_nothing(redis: Redis, queue: RelayQueue):
    upload = queue._upload  # noqa: SLF001
    upload.store(UPLOAD, LargeBody(BODY))
    for start in range(MAX_PIECE_BYTES, len(BODY), MAX_PIECE_BYTES):
        upload._store_piece([UPLOAD], [start, 1000, BODY[start : start + MAX_PIECE_BYTES]])  # noqa: SLF001
    assert redis.get(UPLOAD) == BODY
    assert redis.pttl(UPLOAD) > 0


@pytest.mark.parametrize("stream", [False, True])
def test_large_request_is_served(redis: Redis, redis_url: str, harness: WorkerHarness, stream: bool):
    front = FrontHarness(redis, redis_url)
    text = "what is this?"
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + 300_000 * "QUJD"}}
    content = [image, {"type": "text", "text": text}]
    fields: dict[str, Any] = {"messages": [{"role": "user", "content": content}], "stream": stream}
    response = front.call(front.build_environ(**fields)).decode()
    front.close()
    if stream:
        assert '"error"' not in response
        events = [json.loads(event[6:]) for event in response.split("\n\n") if event.startswith("data: {")]
        reply = "".join(event["choices"][0]["delta"].get("content", "") for event in events)
    else:
        reply = json.loads(response)["choices"][0]["message"]["content"]
    assert reply == translate(text)
