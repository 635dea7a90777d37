"""A job that this version can't read ends at once, with an error for its caller (I7)."""

import json
import zlib
from typing import Any

import pytest
from rq.job import Job

from shared import keys
from shared.api_keys.limits import encode_demand
from shared.observability.request_log import LogFilter, RequestLog
from shared.protocol.messages import Failure, FrameKind
from shared.protocol.relay_queue import open_rq_queue
from tests.builders import build_key, build_request
from tests.integration.harness import CHAT_BODY, WorkerHarness, collect_frames
from tests.waiting import eventually


def encode_call(argument: Any) -> bytes:
    """Data of a job with this argument, as RQ stores it."""
    return zlib.compress(json.dumps(["workers.worker.relay", None, [argument], {}]).encode())


def suspend(harness: WorkerHarness) -> None:
    connection_id = harness.wait_until_idle()
    harness.suspended = True
    harness.redis.client_unblock(connection_id)
    eventually(lambda: harness.redis.hget(harness.worker.key, "state") == b"suspended")


@pytest.mark.parametrize(
    "data",
    [
        b"not zlib",
        zlib.compress(b"not JSON"),
        encode_call("a string"),
        encode_call({"id": "req_1", "of": "a format without the fields that this one needs"}),
        encode_call({**build_request().encode(), "deadline": {"total": 60}, "channel": None}),
    ],
)
def test_caller_of_an_unreadable_job_is_told_at_once(harness: WorkerHarness, data: bytes):
    suspend(harness)
    mailbox = harness.hub.open("req_1")
    key = build_key(concurrency=1)
    request = build_request("req_1", front=harness.hub.front_id, key=key.id)
    harness.queue.enqueue(request, CHAT_BODY, encode_demand(key, 10, request.enqueued_at))
    harness.redis.hset(Job.key_for("req_1"), "data", data)
    harness.suspended = False
    frames = collect_frames(mailbox)
    assert [frame.kind for frame in frames] == [FrameKind.FAILURE]
    failure = Failure.decode(frames[0].payload)
    assert (failure.status, failure.code, failure.headers["retry-after"]) == (503, "job_unreadable", "1")
    eventually(lambda: harness.redis.xlen(keys.REQUEST_LOG))
    (stored,) = RequestLog(harness.redis).read_newest_first(LogFilter())
    entry = stored.entry
    assert (entry.request, entry.key, entry.pool, entry.status, entry.code) == (
        *("req_1", "k1", "default"),
        *(503, "job_unreadable"),
    )
    assert harness.redis.zcard(keys.running_requests("k1")) == 0
    assert harness.redis.exists(keys.body("req_1")) == 0


def test_a_job_of_a_newer_version_is_served(harness: WorkerHarness):
    suspend(harness)
    mailbox = harness.enqueue(front=harness.hub.front_id)
    newer = build_request("req_1", channel=harness.hub.channel("req_1"), front=harness.hub.front_id).encode()
    harness.redis.hset(Job.key_for("req_1"), "data", encode_call({**newer, "new": {"of": "a newer version"}}))
    harness.suspended = False
    assert collect_frames(mailbox)[-1].kind is FrameKind.END


def test_a_job_that_is_not_the_farms_fails_alone(harness: WorkerHarness):
    job = open_rq_queue(harness.redis, "chat:default").enqueue("os.getcwd")
    eventually(lambda: harness.redis.hget(Job.key_for(job.id), "status") == b"failed")
    assert harness.redis.xlen(keys.REQUEST_LOG) == 0
    assert collect_frames(harness.enqueue())[-1].kind is FrameKind.END
