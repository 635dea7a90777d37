"""A worker runs jobs and handles failures of upstreams, credentials and Redis."""

import socket
import time
from collections.abc import Callable
from types import MappingProxyType

import gevent
import gevent.event
import pytest
from gevent.server import StreamServer

from shared import clock, keys
from shared.observability.account_time.in_flight import read_peaks
from shared.protocol.messages import Failure, FrameKind, Head
from tests import internals
from tests.integration.harness import CHAT_BODY, WorkerHarness, collect_frames, streaming_body
from tests.waiting import eventually
from web.reply.mailbox import Mailbox
from workers.attempt.cancel_scope import CancelScope
from workers.upstream.client import UpstreamConnection
from workers.worker import relay

StartHarness = Callable[..., WorkerHarness]


def failure(mailbox: Mailbox) -> Failure:
    return Failure.decode(collect_frames(mailbox)[-1].payload)


def test_job_is_replied_to_and_leaves_nothing(harness: WorkerHarness):
    frames = collect_frames(harness.enqueue())
    assert [frame.kind for frame in frames] == [FrameKind.HEAD, FrameKind.DATA, FrameKind.END]
    assert Head.decode(frames[0].payload).status == 200
    assert b"Uryyb" in frames[1].payload
    eventually(lambda: harness.redis.keys("*req_1*") == [])
    assert harness.redis.hget(harness.worker.key, "successful_job_count") == b"1"


def test_busy_worker_takes_the_next_job_without_a_blocking_pop(harness: WorkerHarness):
    harness.suspended = True
    mailboxes = [harness.enqueue(f"req_{i}") for i in range(4)]
    eventually(lambda: harness.queue.count_waiting("default") == 4)
    harness.redis.config_resetstat()
    harness.suspended = False
    for mailbox in mailboxes:
        assert collect_frames(mailbox)[-1].kind is FrameKind.END
    eventually(lambda: harness.redis.keys("*req_*") == [])
    assert harness.redis.info("commandstats").get("cmdstat_blmove", {"calls": 0})["calls"] <= 2


@pytest.mark.parametrize("end", ["stopped", "suspended"])
def test_stopped_or_suspended_worker_takes_no_next_job(harness: WorkerHarness, end: str):
    harness.upstream.pace(delay=0.4)
    first, _ = harness.enqueue("req_1"), harness.enqueue("req_2")
    eventually(lambda: harness.upstream.counters()["in_flight"] == 1)
    if end == "stopped":
        harness.worker.stop()
    else:
        harness.suspended = True
    assert collect_frames(first)[-1].kind is FrameKind.END
    eventually(lambda: harness.redis.keys("*req_1*") == [])
    gevent.sleep(0.3)
    assert harness.queue.count_waiting("default") == 1
    assert harness.upstream.counters()["in_flight"] == 0


def test_refused_credential_cools_down_then_is_dead_and_its_worker_takes_no_job(start_harness: StartHarness):
    harness = start_harness(refusal_patience=2.0)
    harness.upstream.accounts(kill=0)
    harness.enqueue()
    eventually(lambda: harness.credential_state() == ("cooling", "invalid_grant_retry"))
    eventually(lambda: harness.credential_state() == ("cooling", "invalid_grant_last_retry"))
    eventually(lambda: harness.has_ended)
    history = [(change.state, change.reason) for change in harness.credentials.get_history(harness.credential_id)]
    cooling = [("cooling", "invalid_grant_last_retry"), ("cooling", "invalid_grant_retry")]
    assert history == [("dead", "invalid_grant"), *cooling]
    assert harness.credential_state() == ("dead", "invalid_grant")
    assert harness.queue.count_waiting("default") == 1
    assert harness.redis.hget("rq:job:req_1", "number_of_retries") is None


def test_failing_token_endpoint_delays_requests_and_blames_no_credential(harness: WorkerHarness):
    harness.upstream.faults(token_error=1)
    mailbox = harness.enqueue()
    eventually(lambda: harness.services.counters.value("token_refreshes", "unavailable") >= 3)
    assert harness.credential_state() == ("active", "")
    harness.upstream.faults()
    frames = collect_frames(mailbox)
    assert (frames[-1].kind, Head.decode(frames[0].payload).attempts) == (FrameKind.END, 1)


def test_attempts_that_get_no_access_token_do_not_count(start_harness: StartHarness):
    harness = start_harness(max_attempts=1, refusal_patience=15.0)
    assert collect_frames(harness.enqueue("req_0"))
    harness.upstream.accounts(expire=True)
    harness.upstream.faults(token_refusal=1)
    mailbox = harness.enqueue()
    eventually(lambda: harness.services.counters.value("attempts", "default", "invalid_grant_retry") == 1)
    harness.upstream.faults()
    frames = collect_frames(mailbox)
    assert (frames[-1].kind, Head.decode(frames[0].payload).attempts) == (FrameKind.END, 1)


def test_enabling_a_credential_ends_its_cooldown_at_once(harness: WorkerHarness):
    harness.upstream.faults(rate_limit=1, retry_after=100)
    mailbox = harness.enqueue()
    eventually(lambda: harness.credential_state() == ("cooling", "rate_limited"))
    harness.upstream.faults()
    before = time.monotonic()
    harness.credentials.enable("default", harness.credential_id)
    harness.worker.runner.health.observe_state("active", before - 1)
    assert harness.worker.runner.health.cooldown.remaining() > 90, (
        "an observation from before the cooldown changes nothing"
    )
    harness.worker.runner.health.observe_state("active", time.monotonic())
    assert collect_frames(mailbox)[-1].kind is FrameKind.END


def test_unreachable_upstream_is_an_error_after_all_attempts(start_harness: StartHarness):
    harness = start_harness(pool={"upstream_url": "http://127.0.0.1:9/v1"})
    reply = failure(harness.enqueue())
    assert (reply.status, reply.code, reply.attempts) == (502, "upstream_unreachable", 2)


def test_total_timeout_does_not_blame_the_credential(harness: WorkerHarness):
    harness.upstream.pace(delay=5)
    now = time.time()
    reply = failure(harness.enqueue(enqueued_at=now, deadline=now + 0.5))
    assert (reply.status, reply.code) == (504, "total_timeout")
    assert harness.credential_state() == ("active", "")


def test_lost_lease_ends_the_attempt_and_requeues_the_job(harness: WorkerHarness):
    harness.upstream.pace(delay=60)
    harness.enqueue()
    eventually(lambda: harness.upstream.counters()["in_flight"] == 1)
    harness.lease.lost = True
    eventually(lambda: harness.upstream.counters()["in_flight"] == 0)
    eventually(lambda: harness.queue.count_waiting("default") == 1)
    assert harness.credential_state() == ("active", "")


def test_worker_whose_lease_expired_while_frozen_does_not_call_the_upstream(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
):
    get = harness.worker.runner.token.get

    def frozen(stale: str = "") -> str:
        token = get(stale)
        harness.lease.valid_until = clock.lease_time() - 1
        return token

    monkeypatch.setattr(harness.worker.runner.token, "get", frozen)
    # The monitor has been frozen, too: it does not look before the request is sent.
    monkeypatch.setattr(CancelScope, "check_deadlines", lambda *_: None)
    harness.enqueue()
    eventually(lambda: harness.redis.hget("rq:job:req_1", "number_of_retries") == b"1")
    eventually(lambda: harness.queue.count_waiting("default") == 1)
    assert harness.upstream.counters().get("requests", 0) == 0
    assert harness.credential_state() == ("active", "")
    assert harness.services.counters.value("turns_refused", "send") == 1


def test_turn_is_refused_to_a_worker_whose_credential_another_one_holds(harness: WorkerHarness):
    connection_id = harness.wait_until_idle()
    harness.redis.set(harness.lease.key, "another process:99")
    harness.enqueue()
    harness.redis.client_unblock(connection_id)
    eventually(lambda: harness.services.counters.value("turns_refused", "begin") == 1)
    assert harness.queue.count_waiting("default") == 1


def test_most_requests_at_once_on_an_account_are_kept(start_harness: Callable[..., WorkerHarness]):
    harness = start_harness()
    harness.upstream.pace(delay=0.3)
    for number in range(3):
        harness.enqueue(f"req_{number}")
    eventually(lambda: harness.upstream.counters()["served"] == 3)
    in_flight = harness.services.in_flight
    in_flight.flush(harness.redis)
    assert read_peaks(harness.redis) == {"default": 1}
    # Redis knows of another one on the same account: a worker elsewhere that should not be there.
    harness.redis.sadd(harness.worker.executions_key, "req_9:another")
    harness.enqueue("req_3")
    eventually(lambda: harness.upstream.counters()["served"] == 4)
    in_flight.flush(harness.redis)
    assert read_peaks(harness.redis) == {"default": 2}
    assert harness.services.counters.value("collisions") == 1


def test_suspended_worker_takes_no_job(harness: WorkerHarness):
    connection_id = harness.wait_until_idle()
    harness.suspended = True
    harness.redis.client_unblock(connection_id)
    eventually(lambda: harness.redis.hget(harness.worker.key, "state") == b"suspended")
    mailbox = harness.enqueue()
    assert mailbox.get(0.3) == []
    harness.suspended = False
    assert collect_frames(mailbox)[-1].kind is FrameKind.END


def test_job_stopped_before_its_start_never_reaches_the_upstream(harness: WorkerHarness):
    harness.worker.runner.cancel_before_start("req_1")
    harness.enqueue()
    eventually(lambda: harness.redis.keys("rq:job:*") == [])
    assert harness.upstream.counters()["served"] == 0


def test_job_whose_body_expired_fails(harness: WorkerHarness):
    connection_id = harness.wait_until_idle()
    harness.suspended = True
    harness.redis.client_unblock(connection_id)
    eventually(lambda: harness.redis.hget(harness.worker.key, "state") == b"suspended")
    mailbox = harness.enqueue()
    harness.redis.delete(keys.body("req_1"))
    harness.suspended = False
    assert failure(mailbox).code == "request_expired"


def test_unexpected_exception_is_a_failure_reply(harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(UpstreamConnection, "call", lambda *_: 1 / 0)
    reply = failure(harness.enqueue())
    assert (reply.status, reply.code) == (500, "internal_error")
    assert harness.credential_state() == ("active", "")


def test_redirect_of_the_upstream_is_not_followed(harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch):
    class Redirect:
        status = 307
        headers = MappingProxyType({})

        def close(self) -> None:
            return

    monkeypatch.setattr(UpstreamConnection, "call", lambda *_: Redirect())
    assert failure(harness.enqueue()).code == "upstream_redirect"


def test_upstream_connection_is_kept_between_requests(harness: WorkerHarness):
    for number in range(3):
        collect_frames(harness.enqueue(f"req_{number}"))
    assert internals.connection_counts(harness.worker.runner.open_upstream()) == (3, 1)


@pytest.mark.parametrize(
    ("content_type", "body", "end"),
    [
        (b"application/json", b'{"choices": [{"mess', "upstream_eof"),
        (b"application/json", b'{"choices": []}', ""),
        (b"text/event-stream", b"event: response.output_text.delta\ndata: {}\n\n", "upstream_eof"),
        (b"text/event-stream", b"event: response.completed\ndata: {}\n\n", ""),
    ],
)
def test_body_ended_by_its_connection_must_look_complete(
    start_harness: StartHarness, content_type: bytes, body: bytes, end: str
):
    def serve(client: socket.socket, address: object) -> None:
        client.recv(65536)
        client.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: " + content_type + b"\r\nconnection: close\r\n\r\n" + body)
        client.close()

    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    harness = start_harness(pool={"upstream_url": f"http://127.0.0.1:{server.server_port}/v1"}, max_attempts=1)
    last = collect_frames(harness.enqueue(path="/responses"))[-1]
    assert (Failure.decode(last.payload).code if last.payload else "") == end
    server.stop()


def test_connection_with_an_unread_response_is_closed_before_the_next_job(start_harness: StartHarness):
    """I1: an upstream that still sends would count the next request as a second one on the same credential."""
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
    harness = start_harness(pool={"upstream_url": f"http://127.0.0.1:{server.server_port}/v1"}, max_attempts=1)
    assert Head.decode(collect_frames(harness.enqueue())[0].payload).status == 500
    assert closed.wait(30)
    server.stop()


def test_worker_reconnects_when_redis_drops_its_connection(harness: WorkerHarness):
    harness.redis.client_kill_filter(_id=str(harness.wait_until_idle()))
    assert collect_frames(harness.enqueue())[-1].kind is FrameKind.END


def test_worker_without_its_lease_leaves_the_rq_registration_to_its_successor(harness: WorkerHarness):
    connection_id = harness.wait_until_idle()
    harness.lease.lost = True
    harness.worker.stop()
    harness.redis.client_unblock(connection_id)
    eventually(lambda: harness.has_ended)
    assert harness.redis.sismember("rq:workers", harness.worker.key)


def test_job_function_raises_outside_a_worker():
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
def test_invalid_200_response_is_retried_as_a_failure(
    harness: WorkerHarness, fault: str, stream: bool, status: int, code: str
):
    harness.upstream.faults(**{fault: 1})
    body = streaming_body() if stream else CHAT_BODY
    frames = collect_frames(harness.enqueue(body=body, stream=stream))
    assert harness.upstream.counters()[f"fault_{fault}"] == 2
    if code:
        assert Failure.decode(frames[0].payload).code == code
    else:
        assert Head.decode(frames[0].payload).status == status
        assert b"told to fail" in frames[1].payload


def test_cooldown_lasts_until_the_retry_after_date(harness: WorkerHarness):
    harness.upstream.faults(rate_limit=1, retry_after=50, retry_date=True)
    harness.enqueue()
    eventually(lambda: harness.credential_state() == ("cooling", "rate_limited"))
    assert 40 < harness.worker.runner.health.cooldown.remaining() <= 50


def test_upstream_that_accepts_no_connection_has_its_own_code(start_harness: StartHarness):
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        clients = [socket.socket() for _ in range(3)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        upstream_url = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        harness = start_harness(pool={"upstream_url": upstream_url}, connect_timeout=0.3, first_byte_timeout=5.0)
        reply = failure(harness.enqueue())
        for client in clients:
            client.close()
    assert (reply.status, reply.code, reply.attempts) == (504, "upstream_connect_timeout", 2)
