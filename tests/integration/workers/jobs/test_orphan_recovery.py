"""What a worker that died left behind (I11): found, handed on if nothing had been answered, else ended loudly."""

import pytest
from redis import Redis

from shared import keys
from shared.observability.counters import Counters
from shared.protocol.messages import Failure, FrameKind, decode_frames
from tests.integration.workers.jobs.test_rq_bookkeeping import Bench
from workers.jobs.orphan_recovery import OrphanRecovery
from workers.reply.outbox import MARK_BEGUN_SCRIPT


@pytest.fixture
def bench(redis: Redis) -> Bench:
    """A job that was begun by a worker which died: its lease has run out."""
    made = Bench(redis)
    made.begin()
    redis.delete(made.lease.key)
    return made


def orphans(bench: Bench, max_attempts: int = 4) -> OrphanRecovery:
    return OrphanRecovery(bench.redis, bench.books, "interactive", max_attempts, Counters())


def told(redis: Redis, end) -> list[str]:
    """The codes of the failures that are published while `end` runs."""
    listener = redis.pubsub(ignore_subscribe_messages=True)
    listener.psubscribe("farm:reply:*")
    listener.get_message(timeout=1)
    end()
    codes = []
    while message := listener.get_message(timeout=0.2):
        frames = list(decode_frames(message["data"]))
        assert [frame.kind for frame in frames] == [FrameKind.FAILURE]
        codes += [Failure.decode(frame.payload).code for frame in frames]
    listener.close()
    return codes


def test_whoever_takes_the_credential_over_hands_the_job_on(bench: Bench):
    assert told(bench.redis, lambda: orphans(bench).recover_from_predecessor(bench.worker)) == []
    assert bench.redis.lrange(bench.queue.key, 0, -1) == [b"req_1"]
    assert bench.redis.hget("rq:job:req_1", "number_of_retries") == b"1"
    assert bench.redis.get(keys.body("req_1")) == b"the body"
    assert bench.worker.get_current_job_id() is None


def test_an_answer_that_had_begun_is_ended_and_its_caller_told(bench: Bench):
    bench.redis.eval(MARK_BEGUN_SCRIPT.read_text(), 1, "rq:job:req_1")
    assert told(bench.redis, lambda: orphans(bench).recover_from_predecessor(bench.worker)) == ["worker_lost"]
    assert bench.redis.keys("*req_1*") == []
    assert bench.queue.count == 0


def test_a_job_without_attempts_left_is_ended(bench: Bench):
    assert told(bench.redis, lambda: orphans(bench, max_attempts=1).recover_from_predecessor(bench.worker)) == [
        "worker_lost"
    ]
    assert bench.queue.count == 0


def test_a_job_is_found_even_if_nobody_takes_its_credential_over(bench: Bench):
    found = orphans(bench)
    assert found.recover() == 0
    assert bench.queue.count == 0
    assert found.recover() == 1
    assert bench.redis.lrange(bench.queue.key, 0, -1) == [b"req_1"]
    assert bench.queue.started_job_registry.count == 0


def test_a_job_whose_worker_lives_is_left_alone(bench: Bench):
    bench.redis.set(bench.lease.key, "someone:1")
    found = orphans(bench)
    assert [found.recover() for _ in range(3)] == [0, 0, 0]
    assert bench.queue.started_job_registry.count == 1


def test_a_long_job_is_asked_for_its_worker_once_and_forgotten_with_its_end(bench: Bench):
    bench.redis.set(bench.lease.key, "someone:1")
    found = orphans(bench)
    bench.redis.config_resetstat()
    assert [found.recover() for _ in range(3)] == [0, 0, 0]
    assert bench.redis.info("commandstats")["cmdstat_hget"]["calls"] == 1
    assert len(found._owners) == 1
    bench.redis.delete(bench.queue.started_job_registry.key)
    assert found.recover() == 0
    assert not found._owners


def test_a_job_that_has_ended_is_not_marked(redis: Redis):
    redis.eval(MARK_BEGUN_SCRIPT.read_text(), 1, "rq:job:gone")
    assert redis.keys("rq:job:*") == []
