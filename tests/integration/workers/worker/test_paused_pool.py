"""A paused pool: what runs ends, what comes waits, and nothing is lost until it is resumed."""

from collections.abc import Callable

import pytest
from redis import Redis

from shared import keys, names
from shared.credentials.unsealing import Unsealer
from shared.errors import PoolPaused
from shared.protocol.messages import FrameKind
from shared.protocol.pool_pause import decode_pause, pause_pool, resume_pool
from shared.settings.schema import PoolSettings, Settings
from tests.integration.harness import WorkerHarness, collect_frames
from tests.integration.workers.jobs.bookkeeping_harness import HEARTBEAT_TTL_SECONDS, TwoJobHarness
from tests.waiting import eventually
from workers.process.membership import Membership
from workers.worker.suspension import Suspension

StartHarness = Callable[..., WorkerHarness]


def resume(harness: WorkerHarness) -> None:
    """Resumes the pool; the harness has no membership that would read it."""
    assert resume_pool(harness.redis, "default")
    harness.services.suspension.sync(is_total=False, paused=())


def test_running_request_ends_and_the_next_ones_wait_in_order(harness: WorkerHarness):
    harness.upstream.pace(delay=0.4)
    first = harness.enqueue("req_1")
    eventually(lambda: harness.upstream.counters()["in_flight"] == 1)
    others = [harness.enqueue(f"req_{number}") for number in (2, 3)]
    assert pause_pool(harness.redis, "default", "tests")
    assert collect_frames(first)[-1].kind is FrameKind.END
    eventually(lambda: harness.redis.hget(harness.worker.key, "state") == b"suspended")
    assert harness.queue.count_waiting("default") == 2
    assert harness.upstream.counters()["served"] == 1
    resume(harness)
    for mailbox in others:
        assert collect_frames(mailbox, within=60)[-1].kind is FrameKind.END


def test_request_handed_to_idle_workers_at_that_moment_is_put_back_once_and_nobody_polls(start_harness: StartHarness):
    """The workers do not know of the pause yet: the script that begins jobs does."""
    harness = start_harness(credentials=3)
    eventually(lambda: harness.count_idle() == 3)
    pause_pool(harness.redis, "default", "tests")
    mailbox = harness.enqueue()
    eventually(lambda: harness.services.suspension.holds("default"))
    eventually(lambda: harness.redis.lrange("rq:queue:chat:default", 0, -1) == [b"req_1"])
    harness.redis.config_resetstat()
    assert mailbox.get(1.5) == []
    assert harness.redis.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"] <= 3
    resume(harness)
    assert collect_frames(mailbox, within=60)[-1].kind is FrameKind.END
    assert harness.upstream.counters()["served"] == 1


@pytest.mark.parametrize("role", [{}, {"probe": True}, {"trial": True}])
def test_no_role_begins_a_job_of_a_paused_pool(redis: Redis, role: dict[str, bool]):
    harness = TwoJobHarness(redis)
    pause_pool(redis, "default", "tests")
    execution = harness.bookkeeping.create_execution(harness.worker, "req_1")
    with pytest.raises(PoolPaused):
        harness.bookkeeping.begin(harness.worker, execution, HEARTBEAT_TTL_SECONDS, harness.lease, **role)
    assert redis.lrange(harness.queue.key, 0, -1) == [b"req_1", b"req_2"]


def test_finishing_a_job_begins_none_of_a_paused_pool(redis: Redis):
    harness = TwoJobHarness(redis)
    started = harness.start()
    pause_pool(redis, "default", "tests")
    with pytest.raises(PoolPaused):
        harness.finish_and_start(started)
    assert not redis.exists("rq:job:req_1")
    assert redis.lrange(harness.queue.key, 0, -1) == [b"req_2"]


def test_processes_read_a_pause_and_its_end_once_a_second(redis: Redis, unsealer: Unsealer):
    pools = (PoolSettings(), PoolSettings(name="other"))
    membership = Membership(redis, "here", Settings(pools=pools))
    seen = []
    for change in (lambda: None, lambda: pause_pool(redis, "other", "tests"), lambda: resume_pool(redis, "other")):
        change()
        membership.refresh([])
        seen.append(
            [membership.suspension.holds(pool) for pool in ("default", "other", names.private_pool("other", "c"))]
        )
    assert seen == [[False, False, False], [False, True, True], [False, False, False]]


def test_pause_is_kept_until_it_is_ended_and_belongs_to_whoever_was_first(redis: Redis):
    assert (pause_pool(redis, "default", "first"), pause_pool(redis, "default", "second")) == (True, False)
    mark = redis.get(keys.paused("default"))
    assert (decode_pause(mark).by, decode_pause(mark).since > 0) == ("first", True)
    assert redis.ttl(keys.paused("default")) == -1
    assert (resume_pool(redis, "default"), resume_pool(redis, "default")) == (True, False)
    assert decode_pause(None).since == 0
    assert decode_pause(b"of another version").since > 0


def test_rq_suspend_holds_every_pool():
    suspension = Suspension()
    suspension.mark_paused("default~c1")
    assert (suspension.holds("default"), suspension.holds("other")) == (True, False)
    suspension.sync(is_total=True, paused=())
    assert (suspension.holds("default"), suspension.holds("other")) == (True, True)
