"""Jobs of workers that died are requeued, or ended with a failure (I11)."""

from collections.abc import Callable

import pytest
from redis import Redis

from shared import keys
from shared.observability.counters import Counters
from shared.protocol.messages import Failure, FrameKind, decode_frames
from shared.protocol.relay_queue import open_rq_queue
from shared.redis_connection.client import read_script
from tests import internals
from tests.integration.workers.jobs.bookkeeping_harness import BookkeepingHarness, TwoJobHarness
from workers.jobs.orphan_recovery import IntermediateQueueMonitor, OrphanRecovery
from workers.reply.outbox import MARK_BEGUN_SCRIPT


@pytest.fixture
def orphaned(redis: Redis) -> BookkeepingHarness:
    """A job that was started by a worker whose lease has expired."""
    harness = BookkeepingHarness(redis)
    harness.start()
    redis.delete(harness.lease.key)
    return harness


def expire_everything(redis: Redis) -> None:
    """Deletes what a minute or an hour without any worker lets expire: not the execution, the lease and the body."""
    for key in redis.keys("*"):
        if redis.ttl(key) >= 0 and not key.startswith((b"rq:execution:", b"farm:lease:", b"farm:body:")):
            redis.delete(key)


def build_recovery(orphaned: BookkeepingHarness, max_attempts: int = 4) -> OrphanRecovery:
    return OrphanRecovery(orphaned.redis, orphaned.bookkeeping, "interactive", max_attempts, Counters())


def published_failures(redis: Redis, recover: Callable[[], object]) -> list[str]:
    """The codes of the failures that are published during `recover`."""
    listener = redis.pubsub(ignore_subscribe_messages=True)
    listener.psubscribe("farm:reply:*")
    listener.get_message(timeout=30)
    recover()
    codes = []
    while message := listener.get_message(timeout=0.2):
        frames = list(decode_frames(message["data"]))
        assert [frame.kind for frame in frames] == [FrameKind.FAILURE]
        codes += [Failure.decode(frame.payload).code for frame in frames]
    listener.close()
    return codes


def test_successor_requeues_the_job_of_a_dead_worker(orphaned: BookkeepingHarness):
    recovery = build_recovery(orphaned)
    assert published_failures(orphaned.redis, lambda: recovery.recover_from_predecessor(orphaned.worker)) == []
    assert orphaned.waiting_jobs() == [b"req_1"]
    assert orphaned.redis.hget("rq:job:req_1", "number_of_retries") == b"1"
    assert orphaned.redis.get(keys.body("req_1")) == b"the body"
    assert orphaned.worker.get_current_job_id() is None


def test_successor_fails_a_reply_that_had_started(orphaned: BookkeepingHarness):
    orphaned.redis.eval(read_script(*MARK_BEGUN_SCRIPT), 1, "rq:job:req_1", "req_1")
    recovery = build_recovery(orphaned)
    codes = published_failures(orphaned.redis, lambda: recovery.recover_from_predecessor(orphaned.worker))
    assert codes == ["worker_lost"]
    assert orphaned.redis.keys("*req_1*") == []
    assert orphaned.queue.count == 0


def test_successor_fails_a_job_without_attempts_left(orphaned: BookkeepingHarness):
    recovery = build_recovery(orphaned, max_attempts=1)
    codes = published_failures(orphaned.redis, lambda: recovery.recover_from_predecessor(orphaned.worker))
    assert codes == ["worker_lost"]
    assert orphaned.queue.count == 0


def test_recovery_requeues_a_job_whose_credential_has_no_successor(orphaned: BookkeepingHarness):
    recovery = build_recovery(orphaned)
    assert recovery.recover() == 0
    assert orphaned.queue.count == 0
    assert recovery.recover() == 1
    assert orphaned.waiting_jobs() == [b"req_1"]
    assert orphaned.queue.started_job_registry.count == 0


def test_recovery_leaves_a_job_whose_worker_lives(orphaned: BookkeepingHarness):
    orphaned.redis.set(orphaned.lease.key, orphaned.lease.value)
    recovery = build_recovery(orphaned)
    assert [recovery.recover() for _ in range(3)] == [0, 0, 0]
    assert orphaned.queue.started_job_registry.count == 1


@pytest.mark.parametrize("lease", ["someone:2", "a:2"])
def test_recovery_finds_a_job_from_before_the_present_lease(orphaned: BookkeepingHarness, lease: str):
    """Once the worker host is back after minutes, the credential has a lease again, and RQ's records are gone."""
    orphaned.redis.set(orphaned.lease.key, lease)
    expire_everything(orphaned.redis)
    recovery = build_recovery(orphaned)
    assert recovery.recover_from_predecessor(orphaned.worker) == 0
    assert [recovery.recover() for _ in range(3)] == [0, 1, 0]
    assert orphaned.waiting_jobs() == [b"req_1"]
    assert orphaned.redis.hget("rq:job:req_1", "number_of_retries") == b"1"


def test_jobs_that_wait_while_no_worker_lives_for_an_hour_run_afterwards(redis: Redis):
    harness = TwoJobHarness(redis)
    expire_everything(redis)
    monitor = IntermediateQueueMonitor(redis, harness.queue, Counters())
    assert [monitor.put_back_stuck() for _ in range(2)] == [0, 1]
    started = [harness.try_to_start("*") for _ in range(2)]
    assert [job and (job.job_id, job.body) for job in started] == [
        ("req_1", b"the body"),
        ("req_2", b"the second body"),
    ]


def test_recovery_finds_a_job_of_a_slot_that_the_pool_has_no_more(redis: Redis):
    harness = BookkeepingHarness(redis)
    harness.worker.name = "default.c1~2"
    harness.start()
    redis.set(harness.lease.key, "a:2")
    recovery = build_recovery(harness)
    assert [recovery.recover() for _ in range(2)] == [0, 1]
    assert harness.waiting_jobs() == [b"req_1"]


def test_recovery_leaves_a_job_of_an_older_version_while_anyone_has_the_credential(orphaned: BookkeepingHarness):
    (execution,) = orphaned.redis.keys("rq:execution:*")
    orphaned.redis.hdel(execution, "farm_lease")
    orphaned.redis.set(orphaned.lease.key, "someone:1")
    recovery = build_recovery(orphaned)
    assert [recovery.recover() for _ in range(3)] == [0, 0, 0]
    orphaned.redis.delete(orphaned.lease.key)
    assert [recovery.recover() for _ in range(2)] == [0, 1]


def test_recovery_looks_up_the_worker_of_a_job_once(orphaned: BookkeepingHarness):
    orphaned.redis.set(orphaned.lease.key, orphaned.lease.value)
    recovery = build_recovery(orphaned)
    orphaned.redis.config_resetstat()
    assert [recovery.recover() for _ in range(3)] == [0, 0, 0]
    assert orphaned.redis.info("commandstats")["cmdstat_hmget"]["calls"] == 1
    assert len(internals.known_owners(recovery)) == 1
    orphaned.redis.delete(orphaned.queue.started_job_registry.key)
    assert recovery.recover() == 0
    assert not internals.known_owners(recovery)


def test_mark_script_does_not_recreate_a_finished_job(redis: Redis):
    redis.eval(read_script(*MARK_BEGUN_SCRIPT), 1, "rq:job:gone", "gone")
    assert redis.keys("rq:job:*") == []


def test_job_that_was_popped_but_never_started_is_put_back_first(redis: Redis):
    queue = open_rq_queue(redis, "q")
    for job_id in ("lost", "gone"):
        redis.rpush(queue.intermediate_queue_key, job_id)
    redis.hset("rq:job:lost", "status", "queued")
    redis.rpush(queue.key, "other")
    monitor = IntermediateQueueMonitor(redis, queue, Counters())
    assert monitor.put_back_stuck() == 0
    assert monitor.put_back_stuck() == 1
    assert redis.lrange(queue.key, 0, -1) == [b"lost", b"other"]
    assert redis.llen(queue.intermediate_queue_key) == 0
