"""The front enqueues, withdraws and cancels relay requests as RQ jobs."""

import json
import zlib

import gevent
import pytest
from redis import Redis
from rq import Queue
from rq.command import PUBSUB_CHANNEL_TEMPLATE
from rq.job import Job
from rq.serializers import JSONSerializer

from shared import keys
from shared.protocol.job_template import FAILURE_TTL_SECONDS, RELAY_FUNCTION
from shared.protocol.relay_queue import FRONT_FIELD, MODEL_FIELD, QueueFull, RelayQueue
from tests.builders import build_request


@pytest.fixture
def queue(redis: Redis) -> RelayQueue:
    return RelayQueue(redis, max_queue=3)


def test_enqueued_job_is_what_stock_rq_would_enqueue(redis: Redis, queue: RelayQueue):
    request = build_request()
    queue.enqueue(request, b"body")
    enqueued = redis.hgetall("rq:job:req_1")
    assert redis.lrange("rq:queue:chat:default", 0, -1) == [b"req_1"]
    assert redis.smembers("rq:queues") == {b"rq:queue:chat:default"}

    redis.flushall()
    stock = Queue("chat:default", connection=redis, serializer=JSONSerializer)
    stock.enqueue_call(
        RELAY_FUNCTION,
        args=(request.encode(),),
        timeout=120,
        result_ttl=0,
        failure_ttl=FAILURE_TTL_SECONDS,
        description="POST /chat/completions",
        job_id="req_1",
    )
    expected = redis.hgetall("rq:job:req_1")
    enqueued[b"data"], expected[b"data"] = zlib.decompress(enqueued[b"data"]), zlib.decompress(expected[b"data"])
    times = {b"created_at", b"enqueued_at"}
    assert {k.decode(): v for k, v in enqueued.items() if k.startswith(b"farm_")} == {
        FRONT_FIELD: b"farm:gone:p",
        "farm_key": b"-",
        "farm_band": b"interactive",
        "farm_at": str(request.enqueued_at).encode(),
        "farm_lined": b"1",
    }
    enqueued = {k: v for k, v in enqueued.items() if not k.startswith(b"farm_")}
    assert {k: v for k, v in enqueued.items() if k not in times} == {
        k: v for k, v in expected.items() if k not in times
    }
    assert set(enqueued) == set(expected)
    assert redis.lrange("rq:queue:chat:default", 0, -1) == [b"req_1"]
    assert redis.smembers("rq:queues") == {b"rq:queue:chat:default"}


@pytest.mark.parametrize(
    ("model", "kept"),
    [("m", b"m"), ("\ud800", rb"\ud800"), ("caf\u00e9", "caf\u00e9".encode()), ("m" * 100_000, b"m" * 200)],
)
def test_any_model_name_is_kept_short_and_as_utf8(redis: Redis, queue: RelayQueue, model: str, kept: bytes):
    queue.enqueue(build_request(model=model), b"")
    assert redis.hget("rq:job:req_1", MODEL_FIELD) == kept
    assert json.loads(zlib.decompress(redis.hget("rq:job:req_1", "data")))


def test_enqueue_is_one_round_trip(redis: Redis, queue: RelayQueue):
    queue.enqueue(build_request("req_0"), b"")
    before = redis.info("stats")["total_commands_processed"]
    lua = redis.info("commandstats")["cmdstat_evalsha"]["calls"]
    queue.enqueue(build_request(), b"body")
    stats = redis.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] == lua + 1
    assert redis.info("stats")["total_commands_processed"] - before < 22


def test_body_is_kept_apart_from_the_job_and_expires(redis: Redis, queue: RelayQueue):
    queue.enqueue(build_request(), b"a prompt\x00\xff")
    assert redis.get(keys.body("req_1")) == b"a prompt\x00\xff"
    assert 60 < redis.ttl(keys.body("req_1")) <= 121
    job = Job.fetch("req_1", connection=redis, serializer=JSONSerializer)
    assert "prompt" not in json.dumps(job.args)
    assert job.description == "POST /chat/completions"


def test_full_queue_refuses_requests(redis: Redis, queue: RelayQueue):
    for i in range(3):
        assert queue.enqueue(build_request(f"req_{i}"), b"x").queue_length == i + 1
    with pytest.raises(QueueFull) as caught:
        queue.enqueue(build_request("req_9"), b"x")
    assert caught.value.waiting == 3
    assert not redis.exists("rq:job:req_9", keys.body("req_9"))


def test_withdraw_removes_a_waiting_request_with_its_body(redis: Redis, queue: RelayQueue):
    queue.enqueue(build_request(), b"x")
    assert queue.withdraw("default", "req_1")
    assert redis.keys("*req_1*") == []
    assert queue.count_waiting("default") == 0
    assert not queue.withdraw("default", "req_1")
    assert queue.cancel("default", "req_1") == "gone"


def test_cancel_stops_a_running_request_by_rqs_own_command(redis: Redis, queue: RelayQueue):
    queue.enqueue(build_request(), b"x")
    redis.lpop("rq:queue:chat:default")
    redis.hset("rq:job:req_1", mapping={"status": "started", "worker_name": "default.c1"})
    listener = redis.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(PUBSUB_CHANNEL_TEMPLATE % "default.c1")
    listener.get_message(timeout=30)
    assert not queue.withdraw("default", "req_1")
    assert queue.cancel("default", "req_1") == "stopping"
    message = listener.get_message(timeout=30)
    assert json.loads(message["data"]) == {"command": "stop-job", "job_id": "req_1", "reason": "client_gone"}
    assert redis.exists("rq:job:req_1")
    listener.close()


def test_cancel_deletes_a_request_that_was_popped_but_not_started(redis: Redis, queue: RelayQueue):
    queue.enqueue(build_request(), b"x")
    redis.lmove("rq:queue:chat:default", "rq:queue:chat:default:intermediate")
    assert queue.cancel("default", "req_1") == "withdrawn"
    assert not redis.exists("rq:job:req_1", keys.body("req_1"))


def test_find_vanished_returns_requests_without_a_job(redis: Redis, queue: RelayQueue):
    queue.enqueue(build_request(), b"x")
    assert queue.find_vanished(["req_1", "req_2"]) == {"req_2"}
    assert queue.find_vanished([]) == set()


def test_first_requests_can_be_enqueued_concurrently(redis: Redis):
    queue = RelayQueue(redis, max_queue=100)
    greenlets = [gevent.spawn(queue.enqueue, build_request(f"req_{i}"), b"") for i in range(20)]
    assert sorted(greenlet.get(timeout=30).queue_length for greenlet in greenlets) == list(range(1, 21))
