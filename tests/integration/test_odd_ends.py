"""Ends that nobody wishes for: what is left, settled and logged when answers are lost, people meddle, numbers lie."""

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from rq.job import Job
from rq.serializers import JSONSerializer

from shared import keys
from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import MAX_TOKENS_PER_REQUEST, encode_demand, estimate_tokens
from shared.errors import ApiError
from shared.observability.request_log import LogEntry, LogFilter, RequestLog
from shared.observability.usage import UsageSums
from shared.protocol.messages import FrameKind
from tests.integration.harness import Workshop, answer
from tests.integration.shared.api_keys.test_limits import Desk, a_key
from tests.integration.shared.protocol.test_relay_queue import request
from tests.integration.workers.jobs.test_fair_queueing import Pool, owner, pool, serve
from tests.integration.workers.worker.test_job_completion import an_adder, entry, today
from tests.waiting import eventually
from web.request.log_buffer import RequestLogBuffer
from workers.jobs.job_records import JobCost

__all__ = ["pool"]


def codes(redis: Redis) -> list[str]:
    """Of what the log holds, oldest first."""
    return [one.entry.code for one in RequestLog(redis).read_newest_first(LogFilter())][::-1]


def logged(code: str) -> JobCost:
    return JobCost(entry=LogEntry("req", "k", code=code).encode())


# Numbers


@pytest.mark.parametrize(
    "odd", [b"no json", b"[]", b"{}", b'["r","k","p","m","e","b",0,200,1,"c",0,0,0,1e17,0,0,"",""]']
)
def test_what_is_no_entry_holds_up_no_other(redis: Redis, odd: bytes):
    redis.xadd(keys.REQUEST_LOG, {"e": odd})
    RequestLog(redis).write([entry(1)])
    assert an_adder(redis).roll_up() == 2
    assert UsageSums(redis).query(today())[0]["requests"] == 1


def test_a_reservation_is_bounded_and_given_back_to_the_token(redis: Redis):
    assert estimate_tokens(100, 2**63 - 1, 128) == MAX_TOKENS_PER_REQUEST
    desk = Desk(redis, a_key(quota_tokens=10**15))
    (first, _) = (desk.admit(tokens=MAX_TOKENS_PER_REQUEST), desk.admit(tokens=MAX_TOKENS_PER_REQUEST))
    assert desk.quota()["reserved"] == 2 * MAX_TOKENS_PER_REQUEST
    desk.queue.withdraw("default", first)
    assert desk.quota()["reserved"] == MAX_TOKENS_PER_REQUEST


def test_a_request_of_yesterday_takes_nothing_from_todays_count(redis: Redis):
    desk = Desk(redis, a_key(quota_requests=3, quota_reset="daily"))
    yesterday = [desk.admit() for _ in range(3)]
    desk.ask(86_400)
    for one in yesterday:
        desk.queue.withdraw("default", one)
    assert desk.quota()["requests"] == 1


@pytest.mark.parametrize("usage", ["true", "1e17", "100000000000000000000"])
def test_no_usage_that_an_upstream_makes_up_ends_a_worker(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, usage: str
):
    body = b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": ' + usage.encode() + b"}}"
    monkeypatch.setattr("workers.attempt.attempt.iter_body", lambda _: iter([body]))
    key = ApiKey(id="k1", hint="", created_at=0, quota_tokens=1000)
    for number in range(2):
        name = f"req_{number}"
        mailbox = workshop.hub.open(name)
        asked = request(name, channel=workshop.hub.channel(name), key="k1", path="/chat/completions")
        workshop.queue.enqueue(asked, b"{}", encode_demand(key, 5, asked.enqueued_at))
        assert answer(mailbox)[-1].kind is FrameKind.END
    eventually(lambda: workshop.redis.keys("rq:job:*") == [])
    assert not workshop.ended
    assert len(codes(workshop.redis)) == 2


# Lost answers


def test_a_begin_asked_again_after_its_caller_has_left_leaves_nothing_and_goes_on(pool: Pool):
    pool.ask("a", 2)
    worker = pool.worker()
    execution = pool.books.create_execution(worker.rq)
    first = pool.books.begin(worker.rq, execution, 60, worker.lease)
    assert first is not None
    assert pool.queue.cancel("default", first.job_id) == "stopping"
    again = pool.books.begin(worker.rq, execution, 60, worker.lease)
    assert again is not None
    assert (again.job_id, again.other_executions) == ("req_a_2", 0)
    assert pool.redis.keys(f"*{first.job_id}*") == []
    assert pool.redis.zcard("rq:wip:chat:default") == 1


def test_what_rq_has_cancelled_while_it_waited_is_not_begun(pool: Pool):
    pool.ask("a", 2)
    worker = pool.worker()
    Job.fetch("req_a_1", connection=pool.redis, serializer=JSONSerializer).cancel()
    begun = pool.books.begin(worker.rq, pool.books.create_execution(worker.rq), 60, worker.lease)
    assert begun is not None
    assert begun.job_id == "req_a_2"
    assert pool.redis.keys("*req_a_1*") == []


def test_with_nothing_left_it_is_noted_as_waiting(pool: Pool):
    pool.ask("a")
    worker = pool.worker()
    execution = pool.books.create_execution(worker.rq)
    assert pool.books.begin(worker.rq, execution, 60, worker.lease)
    pool.queue.cancel("default", "req_a_1")
    assert pool.books.begin(worker.rq, execution, 60, worker.lease) is None
    assert pool.redis.zcard(keys.idle_workers("default")) == 1


def test_the_front_writes_a_batch_once_though_its_answer_was_lost(redis: Redis):
    class Deaf(RequestLog):
        is_deaf = True

        def write(self, entries, batch=""):
            super().write(entries, batch)
            if self.is_deaf:
                raise RedisConnectionError("lost")

    log = Deaf(redis)
    journal = RequestLogBuffer(log)
    journal.record_ended(request(), ApiError(429, "queue_timeout", "x"))
    for _ in range(2):
        with pytest.raises(RedisConnectionError):
            journal.flush()
    log.is_deaf = False
    journal.record_ended(request("req_2"), ApiError(429, "queue_full", "x"))
    journal.flush()
    journal.flush()
    assert codes(redis) == ["queue_timeout", "queue_full"]


# Deaths


def test_a_failure_that_was_settled_is_not_settled_again_by_who_finds_it(pool: Pool, monkeypatch: pytest.MonkeyPatch):
    pool.ask("a")
    worker = pool.worker()
    worker.begin()
    monkeypatch.setattr(worker.rq, "handle_job_failure", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pool.books.fail(worker.rq, worker.begun, "why", logged("upstream_eof"))
    assert pool.books.finish(worker.rq, worker.begun, ok=False, cost=logged("worker_lost"))
    assert codes(pool.redis) == ["upstream_eof"]


def test_who_has_lost_an_execution_settles_nothing_of_the_next(pool: Pool):
    (job_id,) = pool.ask("a")
    first, second = pool.worker(1), pool.worker(2)
    first.begin()
    pool.books.requeue(first.rq, first.begun)
    assert second.begin() == job_id
    pool.books.fail(first.rq, first.begun, "late", logged("late"))
    assert codes(pool.redis) == []
    assert pool.redis.get(keys.body(job_id)) == b"x"


# People, and callers who leave


def test_a_line_that_a_person_emptied_is_not_charged(pool: Pool):
    pool.ask("a", 50)
    worker = pool.worker()
    serve(worker, 5)
    pool.books.queues["interactive"].empty()
    pool.ask("b", 20)
    pool.ask("a", 3)
    order = serve(worker, 8)
    assert order.count("a") == 3


def test_a_job_that_failed_is_not_withdrawn_too(pool: Pool):
    (job_id,) = pool.ask("a")
    worker = pool.worker()
    worker.begin()
    pool.books.fail(worker.rq, worker.begun, "why")
    assert pool.queue.cancel("default", job_id) == "gone"
    assert Job.exists(job_id, connection=pool.redis)


def test_who_leaves_while_an_attempt_fails_is_logged(pool: Pool):
    (job_id,) = pool.ask("a")
    worker = pool.worker()
    worker.begin()
    pool.queue.cancel("default", job_id)
    assert not pool.books.requeue(
        worker.rq, worker.begun, entry_if_cancelled=LogEntry("req", "k", code="client_gone").encode()
    )
    assert codes(pool.redis) == ["client_gone"]


def test_a_running_job_that_a_person_deleted_leaves_its_worker_idle(pool: Pool):
    (job_id,) = pool.ask("b", band="batch")
    worker = pool.worker()
    worker.rq.register_birth()
    worker.begin()
    pool.redis.delete(f"rq:job:{job_id}")
    assert worker.turn() == ""
    assert pool.redis.hget(worker.rq.key, "state") == b"idle"
    assert pool.redis.zcard("rq:wip:batch:default") == 0


def test_a_failed_batch_job_that_a_person_puts_back_is_not_kept_behind_the_others(pool: Pool):
    (job_id,) = pool.ask("b", band="batch")
    worker = pool.worker()
    worker.begin()
    pool.books.fail(worker.rq, worker.begun, "why")
    pool.books.queues["batch"].failed_job_registry.requeue(job_id)
    pool.ask("b", 2, band="batch")
    assert worker.begin() == job_id
    assert owner(worker.turn()) == "b"


def test_places_of_a_key_without_a_limit_of_them_do_not_pile_up(redis: Redis):
    desk = Desk(redis, a_key(rpm=1000))
    for at in range(0, 1000, 100):
        redis.delete(Job.key_for(desk.admit(at, lasts=1.0)))
    assert redis.zcard(keys.running_requests("k1")) <= 2


def test_a_clock_that_was_set_back_gives_no_advantage(pool: Pool):
    pool.ask("a", 50)
    pool.ask("b", 50)
    worker = pool.worker()
    worker.begin()
    worker.turn(seconds=-1000.0)
    assert serve(worker, 20).count("a") == pytest.approx(10, abs=2)
