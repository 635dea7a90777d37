"""The same job through stock RQ and through ours: what Redis holds afterwards must be the same."""

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import now

from shared import keys
from shared.errors import BreakerOpen, LeaseLost
from shared.protocol.relay_queue import RelayQueue, open_rq_queue
from tests.integration.shared.protocol.test_relay_queue import request
from workers.credentials.leases import Lease
from workers.jobs.job_records import StartedJob
from workers.jobs.rq_bookkeeping import MAX_FAILED_JOBS, Bookkeeping

TIMES = {"last_heartbeat", "started_at", "ended_at", "created_at", "enqueued_at", "birth", "total_working_time"}
TTL = 960
REQUEST, SECOND = request(), request("req_2")


class Stock(SimpleWorker):
    """A stock worker that neither listens for commands nor takes signals."""

    def subscribe(self) -> None:
        return

    def unsubscribe(self) -> None:
        return

    def _install_signal_handlers(self) -> None:
        return

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        return TTL


def snapshot(redis: Redis) -> dict[str, Any]:
    """Everything of RQ's in Redis, without times and execution ids."""
    found: dict[str, Any] = {}
    for key in sorted(redis.keys("rq:*")):
        name = key.decode()
        kind = redis.type(key).decode()
        if name.startswith("rq:execution:"):
            name = "rq:execution:<job>:<execution>"
        if kind == "hash":
            fields = {k.decode(): v.decode(errors="replace") for k, v in redis.hgetall(key).items()}
            known = TIMES | {"id"}
            found[name] = {k: v for k, v in fields.items() if k not in known and not k.startswith("farm_")}
        elif kind == "zset":
            members = redis.zrange(key, 0, -1)
            composite = not name.startswith("rq:executions:")
            found[name] = sorted(m.decode().split(":")[0] for m in members) if composite else len(members)
        elif kind == "set":
            found[name] = sorted(member.decode().split(":")[0] for member in redis.smembers(key))
        elif kind == "list":
            found[name] = redis.lrange(key, 0, -1)
        else:
            found[name] = kind
    return found


class Bench:
    """A queue with one job, a registered worker, and both kinds of bookkeeping."""

    def __init__(self, redis: Redis) -> None:
        redis.flushall()
        self.redis = redis
        self.queue: Queue = open_rq_queue(redis, "chat:default")
        RelayQueue(redis, 10).enqueue(REQUEST, b"the body")
        self.worker = Stock([self.queue], name="default.c1", connection=redis, serializer=JSONSerializer, worker_ttl=60)
        self.worker.register_birth()
        self.worker.set_state("idle")
        self.lease = Lease("default", "c1", "a:1", 1e12)
        redis.set(self.lease.key, self.lease.value)
        self.books = Bookkeeping(redis, "default")
        self.redis.lmove(self.queue.key, self.queue.intermediate_queue_key)

    def begin(self) -> StartedJob:
        begun = self.try_to_begin("req_1")
        assert begun is not None
        return begun

    def try_to_begin(self, job_id: str) -> StartedJob | None:
        execution = self.books.create_execution(self.worker, job_id)
        return self.books.begin(self.worker, execution, TTL, self.lease)

    def job(self) -> Job:
        return Job.fetch("req_1", connection=self.redis, serializer=JSONSerializer)


def stock_begin(bench: Bench) -> Any:
    job = bench.job()
    execution = bench.worker.prepare_execution(job)
    bench.worker.prepare_job_execution(job, remove_from_intermediate_queue=True)
    return job, execution


def compare(redis: Redis, ours: Callable[[Bench], Any], theirs: Callable[[Bench], Any]) -> dict[str, Any]:
    bench = Bench(redis)
    ours(bench)
    redis.delete(keys.body("req_1"))
    left = snapshot(redis)
    bench = Bench(redis)
    theirs(bench)
    assert left == snapshot(redis)
    return left


def test_a_begun_job_looks_as_stock_rq_leaves_it(redis: Redis):
    left = compare(redis, lambda bench: bench.begin(), stock_begin)
    assert left["rq:worker:default.c1"]["state"] == "busy"
    assert left["rq:job:req_1"]["status"] == "started"


def test_lifetimes_of_a_begun_jobs_keys_are_stock_rqs(redis: Redis):
    def lifetimes(begin: Callable[[Bench], Any]) -> dict[str, int]:
        begin(Bench(redis))
        found = {key.decode().split(":req_1")[0]: redis.ttl(key) for key in redis.keys("rq:*")}
        return {name: ttl for name, ttl in found.items() if "worker:default.c1" not in name or "executions" in name}

    ours, theirs = lifetimes(lambda bench: bench.begin()), lifetimes(stock_begin)
    assert ours.keys() == theirs.keys()
    assert {name: ttl for name, ttl in ours.items() if abs(ttl - theirs[name]) > 2} == {}


def test_an_ended_job_leaves_what_stock_rq_leaves(redis: Redis):
    def stock(bench: Bench) -> None:
        job, execution = stock_begin(bench)
        job.started_at = job.ended_at = now()
        registry = bench.queue.started_job_registry
        bench.worker.handle_job_success(job=job, queue=bench.queue, started_job_registry=registry, execution=execution)
        bench.worker.set_state("idle")

    left = compare(redis, lambda bench: bench.books.finish(bench.worker, bench.begin(), ok=True), stock)
    assert left["rq:worker:default.c1"]["successful_job_count"] == "1"
    assert "rq:job:req_1" not in left


def test_an_ended_job_leaves_no_body(redis: Redis):
    bench = Bench(redis)
    begun = bench.begin()
    assert (begun.body, begun.retries, begun.other_executions) == (b"the body", 0, 0)
    assert begun.request is not None
    bench.books.finish(bench.worker, begun, ok=True)
    assert redis.keys("*req_1*") == []
    assert redis.get(keys.served_jobs("default")) == b"1"
    assert bench.worker.executions == {}


def test_a_failed_job_is_kept_for_the_dashboard_without_its_body(redis: Redis):
    bench = Bench(redis)
    bench.books.fail(bench.worker, bench.begin(), "upstream_error after 4 attempts")
    assert bench.queue.failed_job_registry.get_job_ids() == ["req_1"]
    assert bench.job().latest_result().exc_string == "upstream_error after 4 attempts"
    assert redis.hget("rq:worker:default.c1", "state") == b"idle"
    assert not redis.exists(keys.body("req_1"))
    assert bench.queue.started_job_registry.count == 0


def test_failed_jobs_are_bounded(redis: Redis):
    bench = Bench(redis)
    registry = bench.queue.failed_job_registry
    redis.zadd(registry.key, {f"old_{i}": 2e9 + i for i in range(MAX_FAILED_JOBS + 5)})
    bench.books.fail(bench.worker, bench.begin(), "x")
    assert redis.zcard(registry.key) == MAX_FAILED_JOBS


def test_a_requeued_job_waits_in_front_with_its_body(redis: Redis):
    bench = Bench(redis)
    RelayQueue(redis, 10).enqueue(request("req_2"), b"x")
    assert bench.books.requeue(bench.worker, bench.begin())
    assert redis.lrange(bench.queue.key, 0, -1) == [b"req_1", b"req_2"]
    job = bench.job()
    assert (job.get_status(), job.number_of_retries, job.worker_name) == ("queued", 1, None)
    assert redis.get(keys.body("req_1")) == b"the body"
    assert bench.queue.started_job_registry.count == 0
    redis.lmove(bench.queue.key, bench.queue.intermediate_queue_key)
    assert bench.begin().retries == 1


def test_a_requeued_job_that_was_deleted_meanwhile_does_not_come_back(redis: Redis):
    bench = Bench(redis)
    begun = bench.begin()
    redis.delete("rq:job:req_1")
    assert not bench.books.requeue(bench.worker, begun)
    assert bench.queue.count == 0


def test_a_job_that_was_withdrawn_is_not_begun(redis: Redis):
    bench = Bench(redis)
    redis.delete("rq:job:req_1")
    assert bench.try_to_begin("req_1") is None
    assert redis.keys("*req_1*") == []
    assert redis.llen(bench.queue.intermediate_queue_key) == 0
    assert redis.hget("rq:worker:default.c1", "state") == b"idle"


def test_a_second_job_on_a_worker_is_seen(redis: Redis):
    bench = Bench(redis)
    bench.begin()
    RelayQueue(redis, 10).enqueue(request("req_2"), b"x")
    redis.lmove(bench.queue.key, bench.queue.intermediate_queue_key)
    second = bench.try_to_begin("req_2")
    assert second is not None
    assert second.other_executions == 1


def test_beginning_and_ending_are_one_round_trip_each(redis: Redis):
    bench = Bench(redis)
    bench.books.finish(bench.worker, bench.begin(), ok=True)
    bench = Bench(redis)
    redis.config_resetstat()
    bench.books.finish(bench.worker, bench.begin(), ok=True)
    assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] == 2


def test_a_job_that_is_not_the_farms_is_begun_without_a_request(redis: Redis):
    bench = Bench(redis)
    foreign = bench.queue.enqueue("builtins.print", "hello", job_id="foreign")
    redis.lmove(bench.queue.key, bench.queue.intermediate_queue_key)
    begun = bench.try_to_begin(foreign.id)
    assert begun is not None
    assert begun.request is None


@pytest.mark.parametrize("ok", [True, False])
def test_counts_are_kept_by_outcome(redis: Redis, ok: bool):
    bench = Bench(redis)
    bench.books.finish(bench.worker, bench.begin(), ok=ok)
    name = "successful_job_count" if ok else "failed_job_count"
    assert redis.hget("rq:worker:default.c1", name) == b"1"


def test_who_lost_the_lease_begins_nothing_and_the_job_is_back_in_front(redis: Redis):
    bench = Bench(redis)
    redis.set(bench.lease.key, "b:2")
    with pytest.raises(LeaseLost):
        bench.try_to_begin("req_1")
    assert redis.lrange(bench.queue.key, 0, -1) == [b"req_1"]
    assert redis.hget("rq:job:req_1", "status") == b"queued"
    assert redis.scard(bench.worker.executions_key) == 0


def test_a_job_that_was_put_back_meanwhile_is_begun_once(redis: Redis):
    bench = Bench(redis)
    redis.lmove(bench.queue.intermediate_queue_key, bench.queue.key)
    assert bench.begin().job_id == "req_1"
    assert bench.queue.count == 0
    assert bench.try_to_begin("req_1") is None
    assert redis.get(keys.body("req_1")) == b"the body"


def test_every_step_may_be_asked_for_again(redis: Redis):
    bench = Bench(redis)
    execution = bench.books.create_execution(bench.worker, "req_1")
    begun = [bench.books.begin(bench.worker, execution, TTL, bench.lease) for _ in range(2)]
    assert begun[0] == begun[1]
    assert begun[0] is not None
    assert begun[0].other_executions == 0
    for _ in range(2):
        bench.books.requeue(bench.worker, begun[0])
    assert redis.lrange(bench.queue.key, 0, -1) == [b"req_1"]
    assert redis.hget("rq:job:req_1", "number_of_retries") == b"1"
    redis.lmove(bench.queue.key, bench.queue.intermediate_queue_key)
    again = bench.begin()
    for _ in range(2):
        bench.books.finish(bench.worker, again, ok=True)
    assert redis.hget(bench.worker.key, "successful_job_count") == b"1"
    assert redis.get(keys.served_jobs("default")) == b"1"


def test_a_job_whose_web_process_has_died_is_dropped(redis: Redis):
    bench = Bench(redis)
    redis.set(keys.front_gone("p"), 1)
    assert bench.try_to_begin("req_1") is None
    assert redis.keys("*req_1*") == []


def test_a_job_whose_caller_left_between_two_attempts_is_not_tried_again(redis: Redis):
    bench = Bench(redis)
    begun = bench.begin()
    assert RelayQueue(redis, 10).cancel("default", "req_1") == "stopping"
    assert not bench.books.requeue(bench.worker, begun)
    assert redis.keys("*req_1*") == []
    assert bench.queue.count == 0


def test_a_begin_that_is_asked_again_and_refused_leaves_nothing_behind(redis: Redis):
    bench = Bench(redis)
    execution = bench.books.create_execution(bench.worker, "req_1")
    assert bench.books.begin(bench.worker, execution, TTL, bench.lease)
    redis.set(bench.lease.key, "b:2")
    with pytest.raises(LeaseLost):
        bench.books.begin(bench.worker, execution, TTL, bench.lease)
    assert redis.lrange(bench.queue.key, 0, -1) == [b"req_1"]
    assert redis.zcard("rq:wip:chat:default") == 0
    assert redis.scard(bench.worker.executions_key) == 0


def test_who_ends_an_execution_that_another_has_handed_on_ends_nothing(redis: Redis):
    bench = Bench(redis)
    begun = bench.begin()
    assert bench.books.requeue(bench.worker, begun)
    assert not bench.books.finish(bench.worker, begun, ok=False)
    assert redis.exists("rq:job:req_1")
    assert redis.lrange(bench.queue.key, 0, -1) == [b"req_1"]


def test_a_failure_that_rq_could_not_note_is_tried_again(redis: Redis, monkeypatch: pytest.MonkeyPatch):
    bench = Bench(redis)
    begun = bench.begin()
    monkeypatch.setattr(bench.worker, "handle_job_failure", lambda *_, **__: None)
    with pytest.raises(RedisError):
        bench.books.fail(bench.worker, begun, "reason")
    monkeypatch.undo()
    bench.books.fail(bench.worker, begun, "reason")
    assert redis.zcard("rq:wip:chat:default") == 0


class TwoJobs(Bench):
    """A queue with a job that runs and one that waits."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        RelayQueue(redis, 10).enqueue(SECOND, b"the second body")

    def turn(self, ended: StartedJob, *, ok: bool = True) -> StartedJob | None:
        execution = self.books.create_execution(self.worker)
        return self.books.finish_and_begin(self.worker, ended, execution, TTL, self.lease, ok=ok)


def test_an_end_that_begins_the_next_job_leaves_what_stock_rq_leaves(redis: Redis):
    def ours(bench: TwoJobs) -> None:
        bench.turn(bench.begin())

    def theirs(bench: TwoJobs) -> None:
        job, execution = stock_begin(bench)
        job.started_at = job.ended_at = now()
        registry = bench.queue.started_job_registry
        bench.worker.handle_job_success(job=job, queue=bench.queue, started_job_registry=registry, execution=execution)
        bench.redis.lmove(bench.queue.key, bench.queue.intermediate_queue_key)
        job = Job.fetch("req_2", connection=redis, serializer=JSONSerializer)
        bench.worker.prepare_execution(job)
        bench.worker.prepare_job_execution(job, remove_from_intermediate_queue=True)

    left = []
    for work in (ours, theirs):
        bench = TwoJobs(redis)
        work(bench)
        redis.delete(keys.body("req_1"))
        left.append(snapshot(redis))
    assert left[0] == left[1]
    assert left[0]["rq:worker:default.c1"]["state"] == "busy"
    assert left[0]["rq:job:req_2"]["status"] == "started"


def test_an_end_and_the_next_beginning_are_one_round_trip(redis: Redis):
    bench = TwoJobs(redis)
    begun = bench.begin()
    redis.config_resetstat()
    second = bench.turn(begun)
    assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] == 1
    assert second is not None
    assert (second.job_id, second.body, second.other_executions) == ("req_2", b"the second body", 0)
    assert redis.keys("*req_1*") == []
    assert list(bench.worker.executions.values()) == [second.execution]


def test_an_end_with_nothing_to_begin_leaves_the_worker_idle(redis: Redis):
    bench = TwoJobs(redis)
    second = bench.turn(bench.begin())
    assert second is not None
    assert bench.turn(second, ok=False) is None
    assert redis.hget(bench.worker.key, "state") == b"idle"
    assert redis.hget(bench.worker.key, "failed_job_count") == b"1"
    assert redis.keys("*req_*") == []


def test_an_end_that_is_asked_again_begins_the_same_job(redis: Redis):
    bench = TwoJobs(redis)
    RelayQueue(redis, 10).enqueue(request("req_3"), b"x")
    begun = bench.begin()
    execution = bench.books.create_execution(bench.worker)
    found = [bench.books.finish_and_begin(bench.worker, begun, execution, TTL, bench.lease, ok=True) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0] is not None
    assert (found[0].job_id, found[0].other_executions) == ("req_2", 0)
    assert redis.lrange(bench.queue.key, 0, -1) == [b"req_3"]
    assert redis.hget(bench.worker.key, "successful_job_count") == b"1"


def test_without_the_lease_a_job_ends_and_none_begins(redis: Redis):
    bench = TwoJobs(redis)
    begun = bench.begin()
    redis.set(bench.lease.key, "b:2")
    with pytest.raises(LeaseLost):
        bench.turn(begun)
    assert not redis.exists("rq:job:req_1")
    assert redis.lrange(bench.queue.key, 0, -1) == [b"req_2"]


def test_while_the_upstream_is_down_a_job_ends_and_none_begins(redis: Redis):
    bench = TwoJobs(redis)
    begun = bench.begin()
    redis.hset(keys.breaker("default"), "probe_at", 0)
    with pytest.raises(BreakerOpen):
        bench.turn(begun)
    assert not redis.exists("rq:job:req_1")
    assert redis.lrange(bench.queue.key, 0, -1) == [b"req_2"]


def test_jobs_that_nobody_waits_for_are_passed_over(redis: Redis):
    bench = TwoJobs(redis)
    queue = RelayQueue(redis, 10)
    queue.enqueue(request("req_dead", front="gone"), b"x")
    queue.enqueue(request("req_last"), b"x")
    redis.set(keys.front_gone("gone"), 1)
    redis.delete("rq:job:req_2")
    second = bench.turn(bench.begin())
    assert second is not None
    assert second.job_id == "req_last"
    assert redis.keys("*req_dead*") + redis.keys("*req_2*") == []
