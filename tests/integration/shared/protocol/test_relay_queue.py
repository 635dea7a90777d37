import json
import time
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
from shared.protocol.messages import RelayRequest
from shared.protocol.relay_queue import FRONT_FIELD, QueueFull, RelayQueue


def request(request_id: str = "req_1", **changes) -> RelayRequest:
    now = time.time()
    values = {
        "id": request_id,
        "pool": "default",
        "path": "/chat/completions?k=v",
        "headers": {"content-type": "application/json"},
        "front": "p",
        "channel": f"farm:reply:p:{request_id}",
        "enqueued_at": now,
        "deadline": now + 60,
    }
    return RelayRequest(**(values | changes))


@pytest.fixture
def queue(redis: Redis) -> RelayQueue:
    return RelayQueue(redis, max_queue=3)


def test_a_job_is_what_stock_rq_would_have_enqueued(redis: Redis, queue: RelayQueue):
    asked = request()
    queue.enqueue(asked, b"body")
    ours = redis.hgetall("rq:job:req_1")
    assert redis.lrange("rq:queue:chat:default", 0, -1) == [b"req_1"]
    assert redis.smembers("rq:queues") == {b"rq:queue:chat:default"}

    redis.flushall()
    stock = Queue("chat:default", connection=redis, serializer=JSONSerializer)
    stock.enqueue_call(
        RELAY_FUNCTION,
        args=(asked.encode(),),
        timeout=120,
        result_ttl=0,
        failure_ttl=FAILURE_TTL_SECONDS,
        description="POST /chat/completions",
        job_id="req_1",
    )
    theirs = redis.hgetall("rq:job:req_1")
    ours[b"data"], theirs[b"data"] = zlib.decompress(ours[b"data"]), zlib.decompress(theirs[b"data"])
    times = {b"created_at", b"enqueued_at"}
    assert {k.decode(): v for k, v in ours.items() if k.startswith(b"farm_")} == {
        FRONT_FIELD: b"farm:gone:p",
        "farm_key": b"-",
        "farm_band": b"interactive",
        "farm_at": str(asked.enqueued_at).encode(),
        "farm_lined": b"1",
    }
    ours = {k: v for k, v in ours.items() if not k.startswith(b"farm_")}
    assert {k: v for k, v in ours.items() if k not in times} == {k: v for k, v in theirs.items() if k not in times}
    assert set(ours) == set(theirs)
    assert redis.lrange("rq:queue:chat:default", 0, -1) == [b"req_1"]
    assert redis.smembers("rq:queues") == {b"rq:queue:chat:default"}


def test_a_request_is_enqueued_in_one_round_trip(redis: Redis, queue: RelayQueue):
    queue.enqueue(request("req_0"), b"")
    before = redis.info("stats")["total_commands_processed"]
    lua = redis.info("commandstats")["cmdstat_evalsha"]["calls"]
    queue.enqueue(request(), b"body")
    stats = redis.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] == lua + 1
    assert redis.info("stats")["total_commands_processed"] - before < 18


def test_the_body_is_kept_apart_and_not_for_ever(redis: Redis, queue: RelayQueue):
    queue.enqueue(request(), b"a prompt\x00\xff")
    assert redis.get(keys.body("req_1")) == b"a prompt\x00\xff"
    assert 60 < redis.ttl(keys.body("req_1")) <= 121
    job = Job.fetch("req_1", connection=redis, serializer=JSONSerializer)
    assert "prompt" not in json.dumps(job.args)
    assert job.description == "POST /chat/completions"


def test_a_full_queue_takes_no_more(redis: Redis, queue: RelayQueue):
    for i in range(3):
        assert queue.enqueue(request(f"req_{i}"), b"x").queue_length == i + 1
    with pytest.raises(QueueFull) as caught:
        queue.enqueue(request("req_9"), b"x")
    assert caught.value.waiting == 3
    assert not redis.exists("rq:job:req_9", keys.body("req_9"))


def test_a_waiting_request_is_withdrawn_with_its_body(redis: Redis, queue: RelayQueue):
    queue.enqueue(request(), b"x")
    assert queue.withdraw("default", "req_1")
    assert redis.keys("*req_1*") == []
    assert queue.count_waiting("default") == 0
    assert not queue.withdraw("default", "req_1")
    assert queue.cancel("default", "req_1") == "gone"


def test_a_running_request_is_stopped_by_rqs_own_command(redis: Redis, queue: RelayQueue):
    queue.enqueue(request(), b"x")
    redis.lpop("rq:queue:chat:default")
    redis.hset("rq:job:req_1", mapping={"status": "started", "worker_name": "default.c1"})
    listener = redis.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(PUBSUB_CHANNEL_TEMPLATE % "default.c1")
    listener.get_message(timeout=1)
    assert not queue.withdraw("default", "req_1")
    assert queue.cancel("default", "req_1") == "stopping"
    message = listener.get_message(timeout=2)
    assert json.loads(message["data"]) == {"command": "stop-job", "job_id": "req_1"}
    assert redis.exists("rq:job:req_1")
    listener.close()


def test_a_request_that_was_popped_but_not_begun_is_deleted(redis: Redis, queue: RelayQueue):
    queue.enqueue(request(), b"x")
    redis.lmove("rq:queue:chat:default", "rq:queue:chat:default:intermediate")
    assert queue.cancel("default", "req_1") == "withdrawn"
    assert not redis.exists("rq:job:req_1", keys.body("req_1"))


def test_vanished_requests_are_told_from_those_that_are_there(redis: Redis, queue: RelayQueue):
    queue.enqueue(request(), b"x")
    assert queue.find_vanished(["req_1", "req_2"]) == {"req_2"}
    assert queue.find_vanished([]) == set()


def test_the_first_requests_may_come_together(redis: Redis):
    queue = RelayQueue(redis, max_queue=100)
    works = [gevent.spawn(queue.enqueue, request(f"req_{i}"), b"") for i in range(20)]
    assert sorted(work.get(timeout=5).queue_length for work in works) == list(range(1, 21))
