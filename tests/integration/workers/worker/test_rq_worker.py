"""One worker with its queue, its lease and a simulator, in this process: what it does with jobs and with failures."""

import socket
import time

import gevent
import gevent.event
import pytest
from gevent.server import StreamServer
from redis import Redis

from shared import keys
from shared.credentials.unsealing import Unsealer
from shared.protocol.messages import Failure, FrameKind, Head
from tests.integration.harness import BODY, Workshop, answer
from tests.upstream import Upstream
from tests.waiting import eventually
from web.reply.mailbox import Mailbox
from workers.upstream.client import UpstreamConnection
from workers.worker import relay


def failure(mailbox: Mailbox) -> Failure:
    return Failure.decode(answer(mailbox)[-1].payload)


def test_a_job_is_answered_and_nothing_of_it_is_left(workshop: Workshop):
    frames = answer(workshop.ask())
    assert [frame.kind for frame in frames] == [FrameKind.HEAD, FrameKind.DATA, FrameKind.END]
    assert Head.decode(frames[0].payload).status == 200
    assert b"Uryyb" in frames[1].payload
    eventually(lambda: workshop.redis.keys("*req_1*") == [])
    assert workshop.redis.hget(workshop.worker.key, "successful_job_count") == b"1"


def test_a_busy_worker_goes_from_job_to_job_without_waiting_in_line(workshop: Workshop):
    workshop.suspended = True
    mailboxes = [workshop.ask(f"req_{i}") for i in range(4)]
    eventually(lambda: workshop.queue.count_waiting("default") == 4)
    workshop.redis.config_resetstat()
    workshop.suspended = False
    for mailbox in mailboxes:
        assert answer(mailbox)[-1].kind is FrameKind.END
    eventually(lambda: workshop.redis.keys("*req_*") == [])
    assert workshop.redis.info("commandstats").get("cmdstat_blmove", {"calls": 0})["calls"] <= 2


@pytest.mark.parametrize("end", ["stopped", "suspended"])
def test_a_worker_that_may_not_go_on_takes_no_next_job(workshop: Workshop, end: str):
    workshop.upstream.pace(delay=0.4)
    first, _ = workshop.ask("req_1"), workshop.ask("req_2")
    eventually(lambda: workshop.upstream.counters()["in_flight"] == 1)
    if end == "stopped":
        workshop.worker.stop()
    else:
        workshop.suspended = True
    assert answer(first)[-1].kind is FrameKind.END
    eventually(lambda: workshop.redis.keys("*req_1*") == [])
    gevent.sleep(0.3)
    assert workshop.queue.count_waiting("default") == 1
    assert workshop.upstream.counters()["in_flight"] == 0


def test_a_refused_account_is_dead_and_its_worker_takes_no_job(workshop: Workshop):
    workshop.upstream.accounts(kill=0)
    workshop.ask()
    eventually(lambda: workshop.ended)
    assert workshop.state() == ("dead", "invalid_grant")
    assert workshop.queue.count_waiting("default") == 1
    assert workshop.redis.hget("rq:job:req_1", "number_of_retries") is None


def test_requests_wait_for_a_token_endpoint_that_fails_and_no_credential_is_blamed(workshop: Workshop):
    workshop.upstream.faults(token_error=1)
    mailbox = workshop.ask()
    eventually(lambda: workshop.services.counters.value("token_refreshes", "unavailable") >= 3)
    assert workshop.state() == ("active", "")
    workshop.upstream.faults()
    frames = answer(mailbox)
    assert (frames[-1].kind, Head.decode(frames[0].payload).attempts) == (FrameKind.END, 1)


def test_a_person_ends_the_pause_of_a_credential_at_once(workshop: Workshop):
    workshop.upstream.faults(rate_limit=1, retry_after=100)
    mailbox = workshop.ask()
    eventually(lambda: workshop.state() == ("cooling", "rate_limited"))
    workshop.upstream.faults()
    before = time.monotonic()
    workshop.credentials.enable("default", workshop.id)
    workshop.worker.runner.health.observe_state("active", before - 1)
    assert workshop.worker.runner.health.cooldown.remaining() > 90, "an older look says nothing"
    workshop.worker.runner.health.observe_state("active", time.monotonic())
    assert answer(mailbox)[-1].kind is FrameKind.END


def test_an_upstream_that_can_not_be_reached_ends_in_an_error_after_all_attempts(redis, redis_url, opener, upstream):
    workshop = Workshop(redis, redis_url, opener, upstream)
    object.__setattr__(workshop.pool, "upstream_url", "http://127.0.0.1:9/v1")
    found = failure(workshop.ask())
    assert (found.status, found.code, found.attempts) == (502, "upstream_unreachable", 2)
    workshop.close()


def test_a_request_whose_time_is_over_is_not_the_credentials_fault(workshop: Workshop):
    workshop.upstream.pace(delay=5)
    now = time.time()
    found = failure(workshop.ask(enqueued_at=now, deadline=now + 0.5))
    assert (found.status, found.code) == (504, "total_timeout")
    assert workshop.state() == ("active", "")


def test_an_account_that_was_lost_ends_its_attempt_and_the_job_goes_on(workshop: Workshop):
    workshop.upstream.pace(delay=5)
    workshop.ask()
    eventually(lambda: workshop.upstream.counters()["in_flight"] == 1)
    workshop.lease.lost = True
    eventually(lambda: workshop.upstream.counters()["in_flight"] == 0, within=2)
    eventually(lambda: workshop.queue.count_waiting("default") == 1)
    assert workshop.state() == ("active", "")


def test_whoever_was_frozen_before_it_asked_the_upstream_asks_it_no_more(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    get = workshop.worker.runner.token.get

    def frozen(stale: str = "") -> str:
        token = get(stale)
        workshop.lease.valid_until = time.monotonic() - 1
        return token

    monkeypatch.setattr(workshop.worker.runner.token, "get", frozen)
    workshop.ask()
    eventually(lambda: workshop.redis.hget("rq:job:req_1", "number_of_retries") == b"1")
    eventually(lambda: workshop.queue.count_waiting("default") == 1)
    assert workshop.upstream.counters().get("requests", 0) == 0
    assert workshop.state() == ("active", "")


def test_a_suspended_worker_takes_no_job(workshop: Workshop):
    eventually(lambda: workshop.worker.blocking_pop.client_id)
    workshop.suspended = True
    workshop.redis.client_unblock(workshop.worker.blocking_pop.client_id)
    eventually(lambda: workshop.redis.hget(workshop.worker.key, "state") == b"suspended")
    mailbox = workshop.ask()
    assert mailbox.get(0.3) == []
    workshop.suspended = False
    assert answer(mailbox)[-1].kind is FrameKind.END


def test_a_stop_that_came_early_ends_the_job_before_the_upstream_sees_it(workshop: Workshop):
    workshop.worker.runner.cancel_before_start("req_1")
    workshop.ask()
    eventually(lambda: workshop.redis.keys("rq:job:*") == [])
    assert workshop.upstream.counters()["served"] == 0


def test_a_job_without_its_body_is_ended_and_its_caller_told(workshop: Workshop):
    eventually(lambda: workshop.worker.blocking_pop.client_id)
    workshop.suspended = True
    workshop.redis.client_unblock(workshop.worker.blocking_pop.client_id)
    eventually(lambda: workshop.redis.hget(workshop.worker.key, "state") == b"suspended")
    mailbox = workshop.ask()
    workshop.redis.delete(keys.body("req_1"))
    workshop.suspended = False
    assert failure(mailbox).code == "request_expired"


def test_a_mistake_of_ours_is_an_answer_too(workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(UpstreamConnection, "call", lambda *_: 1 / 0)
    found = failure(workshop.ask())
    assert (found.status, found.code) == (500, "internal_error")
    assert workshop.state() == ("active", "")


def test_an_upstream_that_redirects_is_not_followed(workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    class Redirect:
        status = 307

        def close(self) -> None:
            return

    monkeypatch.setattr(UpstreamConnection, "call", lambda *_: Redirect())
    assert failure(workshop.ask()).code == "upstream_redirect"


def test_a_connection_is_kept_from_one_request_to_the_next(workshop: Workshop):
    for number in range(3):
        answer(workshop.ask(f"req_{number}"))
    pool = workshop.worker.runner.open_upstream()._pool
    assert (pool.num_requests, pool.num_connections) == (3, 1)


@pytest.mark.parametrize(
    ("content_type", "body", "end"),
    [
        (b"application/json", b'{"choices": [{"mess', "upstream_eof"),
        (b"application/json", b'{"choices": []}', ""),
        (b"text/event-stream", b"event: response.output_text.delta\ndata: {}\n\n", "upstream_eof"),
        (b"text/event-stream", b"event: response.completed\ndata: {}\n\n", ""),
    ],
)
def test_a_body_that_ends_with_its_connection_is_whole_only_if_it_says_so(
    redis: Redis, redis_url: str, opener: Unsealer, upstream: Upstream, content_type: bytes, body: bytes, end: str
):
    def serve(client: socket.socket, address: object) -> None:
        client.recv(65536)
        client.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: " + content_type + b"\r\nconnection: close\r\n\r\n" + body)
        client.close()

    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    workshop = Workshop(redis, redis_url, opener, upstream, max_attempts=1)
    object.__setattr__(workshop.pool, "upstream_url", f"http://127.0.0.1:{server.server_port}/v1")
    last = answer(workshop.ask(path="/responses"))[-1]
    assert (Failure.decode(last.payload).code if last.payload else "") == end
    workshop.close()
    server.stop()


def test_a_connection_whose_answer_was_not_read_to_its_end_is_closed_before_the_worker_is_free(
    redis: Redis, redis_url: str, opener: Unsealer, upstream: Upstream
):
    """I1: an upstream that still sends must not count the account as busy while the next request comes."""
    closed = gevent.event.Event()

    def serve(client: socket.socket, address: object) -> None:
        client.recv(65536)
        client.sendall(b"HTTP/1.1 500 Oops\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 100_000)
        try:
            while client.recv(65536):
                pass
        except ConnectionResetError:
            pass
        closed.set()

    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    workshop = Workshop(redis, redis_url, opener, upstream, max_attempts=1)
    object.__setattr__(workshop.pool, "upstream_url", f"http://127.0.0.1:{server.server_port}/v1")
    assert Head.decode(answer(workshop.ask())[0].payload).status == 500
    assert closed.wait(2)
    workshop.close()
    server.stop()


def test_a_lost_redis_is_waited_for(workshop: Workshop):
    eventually(lambda: workshop.worker.blocking_pop.client_id)
    workshop.redis.client_kill_filter(_id=str(workshop.worker.blocking_pop.client_id))
    assert answer(workshop.ask())[-1].kind is FrameKind.END


def test_a_worker_that_has_lost_its_lease_leaves_the_name_to_the_next(workshop: Workshop):
    eventually(lambda: workshop.worker.blocking_pop.client_id)
    workshop.lease.lost = True
    workshop.worker.stop()
    workshop.redis.client_unblock(workshop.worker.blocking_pop.client_id)
    eventually(lambda: workshop.ended)
    assert workshop.redis.sismember("rq:workers", workshop.worker.key)


def test_outside_a_worker_the_jobs_function_says_so():
    with pytest.raises(RuntimeError, match="bound to a credential"):
        relay({})


@pytest.mark.parametrize(
    ("fault", "stream", "status", "code"),
    [
        ("error_object", False, 502, ""),
        ("error_object", True, 502, ""),
        ("empty_stream", True, 502, "upstream_no_answer"),
        ("page", False, 502, "upstream_no_answer"),
    ],
)
def test_a_200_that_is_no_answer_is_a_failure_and_tried_again(
    workshop: Workshop, fault: str, stream: bool, status: int, code: str
):
    workshop.upstream.faults(**{fault: 1})
    body = BODY.replace(b'{"model"', b'{"stream": true, "model"') if stream else BODY
    frames = answer(workshop.ask(body=body, stream=stream))
    assert workshop.upstream.counters()[f"fault_{fault}"] == 2
    if code:
        assert Failure.decode(frames[0].payload).code == code
    else:
        assert Head.decode(frames[0].payload).status == status
        assert b"told to fail" in frames[1].payload


def test_a_pause_is_as_long_as_the_date_that_the_upstream_gives(workshop: Workshop):
    workshop.upstream.faults(rate_limit=1, retry_after=50, retry_date=True)
    workshop.ask()
    eventually(lambda: workshop.state() == ("cooling", "rate_limited"))
    assert 40 < workshop.worker.runner.health.cooldown.remaining() <= 50


def test_an_upstream_that_lets_nobody_connect_has_a_code_of_its_own(redis, redis_url, opener, upstream):
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        workshop = Workshop(redis, redis_url, opener, upstream, connect_timeout=0.3, first_byte_timeout=5.0)
        object.__setattr__(workshop.pool, "upstream_url", f"http://127.0.0.1:{full.getsockname()[1]}/v1")
        found = failure(workshop.ask())
        for one in waiting:
            one.close()
    assert (found.status, found.code, found.attempts) == (504, "upstream_connect_timeout", 2)
    workshop.close()
