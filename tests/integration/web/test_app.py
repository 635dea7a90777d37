"""A front's app serves callers on a real Redis without workers."""

import json
import tracemalloc
from collections.abc import Iterator

import gevent
import pytest
from flask.testing import FlaskClient
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from werkzeug.test import TestResponse

from shared import clock, keys
from shared.api_keys.store import ApiKeys
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.observability.durability import STATES
from shared.protocol.credential_operations import CredentialOperation
from shared.protocol.job_data import decode_request
from shared.protocol.messages import Failure, Frame, FrameKind, Head
from shared.settings.schema import PoolSettings
from tests import internals
from tests.integration.front_harness import FrontHarness
from tests.waiting import eventually
from web.admission import MAX_HEADER_LENGTH

CHAT_BODY = {"model": "m", "messages": []}


class Front(FrontHarness):
    """A front whose workers are played by the test."""

    def __init__(self, redis: Redis, redis_url: str, **settings) -> None:
        super().__init__(redis, redis_url, **settings)
        self.client: FlaskClient = self.app.test_client()

    def send(self, path: str = "/v1/chat/completions", **fields):
        """Sends a request as the key of `secret`, in a greenlet."""
        headers = {"authorization": f"Bearer {self.secret}"}
        if fields.pop("method", "POST") == "GET":
            return gevent.spawn(self.client.get, path, headers=headers)
        return gevent.spawn(self.client.post, path, json=CHAT_BODY | fields, headers=headers)

    def reply(self, status: int, content_type: str, *parts: bytes, end: FrameKind | None = FrameKind.END) -> str:
        """Replies to the request that waits, as a worker does; returns its id."""
        queue = self.services.request_services.queue
        eventually(lambda: queue.count_waiting("default") == 1)
        request_id = self.redis.lpop("rq:queue:chat:default").decode()
        head = Head(status, {"content-type": content_type}, 1, 0, 0).encode()
        frames = [Frame(FrameKind.HEAD, 0, head), *(Frame(FrameKind.DATA, i, p) for i, p in enumerate(parts, 1))]
        if end:
            frames.append(Frame(end, len(frames), b""))
        channel = self.services.hub.channel(request_id)
        self.redis.publish(channel, b"".join(frame.encode() for frame in frames))
        return request_id

    def reply_to_next(self) -> None:
        """Serves the request that has waited longest."""
        request_id = self.redis.lpop("rq:queue:chat:default").decode()
        frames = [Frame(FrameKind.HEAD, 0, Head(200, {"content-type": "application/json"}, 1, 0, 0).encode())]
        frames += [Frame(FrameKind.DATA, 1, b"{}"), Frame(FrameKind.END, 2, b"")]
        self.redis.publish(self.services.hub.channel(request_id), b"".join(frame.encode() for frame in frames))

    def continue_reply(self, request_id: str, number: int, *parts: bytes, end: bool = True) -> None:
        """Sends more of a reply, whose next frame has this number, by default to its end."""
        frames = [Frame(FrameKind.DATA, i, part) for i, part in enumerate(parts, number)]
        if end:
            frames.append(Frame(FrameKind.END, number + len(parts), b""))
        channel = self.services.hub.channel(request_id)
        self.redis.publish(channel, b"".join(frame.encode() for frame in frames))


@pytest.fixture
def front(redis: Redis, redis_url: str, unsealer: Unsealer) -> Iterator[Front]:
    Credentials(redis).add("default", "token")
    front = Front(redis, redis_url, keepalive=0.1)
    yield front
    front.close()


def test_finished_reply_leaves_no_mailbox(front: Front):
    for stream, kind in ((False, "application/json"), (True, "text/event-stream"), (False, "audio/mpeg")):
        sent = front.send(stream=stream)
        front.reply(200, kind, b'{"a": 1}')
        response = sent.get(timeout=30)
        assert response.data.endswith(b'{"a": 1}')
        response.close()
    assert len(front.services.hub) == 0


def test_requests_leave_the_queue_when_the_front_is_stopped(front: Front):
    queue = front.services.request_services.queue
    running = front.send()
    front.reply(200, "application/json", b"{", end=None)
    waiting = front.send()
    eventually(lambda: queue.count_waiting("default") == 1)
    front.services.begin_shutdown()
    refused = front.send()
    for response in (waiting.get(timeout=30), refused.get(timeout=30)):
        assert (response.status_code, response.json["error"]["code"]) == (503, "shutting_down")
        assert int(response.headers["retry-after"]) > 0
    assert queue.count_waiting("default") == 0
    assert not running.ready(), "it has the drain time"
    front.services.end_requests()
    response = running.get(timeout=30)
    assert (response.status_code, response.json["error"]["code"]) == (503, "shutting_down")
    assert len(front.services.hub) == 0


def start_stream(front: Front) -> tuple[TestResponse, Iterator[bytes]]:
    """Sends a request for a stream; returns the response once a comment has begun it, and the rest of its chunks."""
    response = front.send(stream=True).get(timeout=30)
    chunks = response.iter_encoded()
    assert next(chunks) == b": keep-alive\n\n"
    return response, chunks


def test_json_reply_to_a_started_stream_is_sent_as_one_event(front: Front):
    response, chunks = start_stream(front)
    front.reply(400, "application/json", b'{"error":\n{"message": "no"}}')
    assert b"".join(chunks).endswith(b'data: {"error": {"message": "no"}}\n\n')
    response.close()
    assert len(front.services.hub) == 0


def test_binary_reply_to_a_started_stream_is_an_error_event(front: Front):
    response, chunks = start_stream(front)
    front.reply(200, "audio/mpeg", b"\xff\n\n\x00")
    events = b"".join(chunks)
    assert b"\xff" not in events
    assert b'data: {"error": {"message": "the upstream\'s response is not a stream' in events
    response.close()
    assert len(front.services.hub) == 0


def test_audio_is_sent_as_it_is_however_late(front: Front):
    sent = front.send("/v1/audio/speech", stream=True)
    gevent.sleep(2 * front.services.settings.keepalive)
    front.reply(200, "audio/mpeg", b"\xff\n\n\x00")
    response = sent.get(timeout=30)
    assert (response.content_type, response.data) == ("audio/mpeg", b"\xff\n\n\x00")
    response.close()


def test_truncated_binary_reply_breaks_the_connection(front: Front):
    sent = front.send("/v1/audio/speech")
    request_id = front.reply(200, "audio/mpeg", b"half", end=None)
    (mailbox,) = internals.open_mailboxes(front.services.hub)
    assert mailbox.request_id == request_id
    eventually(lambda: mailbox.position[1])
    mailbox.abandon()
    with pytest.raises(ConnectionResetError):
        sent.get(timeout=30).get_data()


def test_an_image_reserves_little_of_the_keys_quota(front: Front, redis: Redis):
    front.secret, key = ApiKeys(redis).create("limited", quota_tokens=1_000_000, tpm=1_000_000)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + 2_000_000 * "A"}}
    sent = [front.send(messages=[{"role": "user", "content": [image]}]), front.send()]
    eventually(lambda: front.services.request_services.queue.count_waiting("default") == 2)
    assert int(redis.hget(keys.quota(key.id), "reserved")) < 2000
    front.services.hub.fail_all(Failure(502, "x", "x"))
    assert {response.get(timeout=30).status_code for response in sent} == {502}


def test_a_model_name_that_has_no_utf8_is_a_404(redis: Redis, redis_url: str, unsealer: Unsealer):
    front = Front(redis, redis_url, pools=(PoolSettings(models=("a",)),))
    headers = {"authorization": f"Bearer {front.secret}"}
    body = b'{"model": "\\ud800", "messages": []}'
    response = front.client.post("/v1/chat/completions", data=body, headers=headers)
    assert (response.status_code, response.json["error"]["code"]) == (404, "model_not_found")
    front.close()


def test_configured_models_are_listed_and_others_refused(redis: Redis, redis_url: str, unsealer: Unsealer):
    pools = (PoolSettings(models=("a",), model_map={"b": "a"}), PoolSettings(name="empty"))
    front = Front(redis, redis_url, pools=pools[:1])
    listed = front.send("/v1/models", method="GET").get(timeout=30)
    assert [model["id"] for model in listed.json["data"]] == ["a", "b"]
    refused = front.send(model="c").get(timeout=30)
    assert (refused.status_code, refused.json["error"]["code"]) == (404, "model_not_found")
    front.close()


def test_mapped_model_reaches_the_upstream_by_its_upstream_name(redis: Redis, redis_url: str, unsealer: Unsealer):
    Credentials(redis).add("default", "token")
    front = Front(redis, redis_url, pools=(PoolSettings(model_map={"gpt": "theirs"}),))
    sent = front.send(model="gpt")
    eventually(lambda: front.services.request_services.queue.count_waiting("default") == 1)
    (body,) = [redis.get(key) for key in redis.scan_iter("farm:body:*")]
    assert b'"theirs"' in body
    front.reply(200, "application/json", b"{}")
    assert sent.get(timeout=30).status_code == 200
    front.close()


def test_lost_redis_is_a_503_and_an_unexpected_exception_a_500(front: Front, monkeypatch: pytest.MonkeyPatch):
    def gone(*_):
        raise RedisConnectionError("gone")

    monkeypatch.setattr("shared.redis_connection.retry.REDIS_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(front.services.request_services.queue, "enqueue", gone)
    away = front.send().get(timeout=30)
    assert (away.status_code, away.json["error"]["code"]) == (503, "store_unavailable")
    monkeypatch.setattr(front.services.request_services.queue, "enqueue", lambda *_: 1 / 0)
    ours = front.send().get(timeout=30)
    assert (ours.status_code, ours.json["error"]["code"]) == (500, "internal_error")
    assert len(front.services.hub) == 0


def test_enqueue_is_retried_during_an_outage_and_enqueues_once(front: Front, monkeypatch: pytest.MonkeyPatch):
    enqueue, tries = front.services.request_services.queue.enqueue, []

    def flaky(*arguments):
        tries.append(arguments)
        if len(tries) in (1, 3):
            enqueue(*arguments)
        if len(tries) < 4:
            raise RedisConnectionError("the reply was lost")
        return enqueue(*arguments)

    monkeypatch.setattr(front.services.request_services.queue, "enqueue", flaky)
    sent = front.send()
    eventually(lambda: len(tries) == 4)
    assert front.services.request_services.queue.count_waiting("default") == 1
    front.reply(200, "application/json", b"{}")
    assert sent.get(timeout=30).status_code == 200


def test_worker_may_reply_before_the_retry_of_an_enqueue_with_a_lost_reply(
    front: Front, monkeypatch: pytest.MonkeyPatch
):
    enqueue = front.services.request_services.queue.enqueue

    def reply_and_lose(*arguments):
        enqueue(*arguments)
        front.reply(200, "application/json", b"{}")
        eventually(lambda: internals.open_mailboxes(front.services.hub)[0].has_started)
        raise RedisConnectionError("the reply was lost")

    monkeypatch.setattr(front.services.request_services.queue, "enqueue", reply_and_lose)
    assert front.send().get(timeout=30).status_code == 200
    assert len(front.services.hub) == 0


class GeneratedInput:
    """A body that exists only as far as it has been read."""

    def __init__(self, text_length: int) -> None:
        self._pieces = [b'{"model": "m", "text": "', b'"}']
        self._text_length = text_length
        self.length = text_length + sum(map(len, self._pieces))

    def read(self, size: int) -> bytes:
        if len(self._pieces) == 2:
            return self._pieces.pop(0)
        if self._text_length:
            size = min(size, self._text_length)
            self._text_length -= size
            return size * b"x"
        return self._pieces.pop() if self._pieces else b""


@pytest.mark.parametrize("name", ["accept", "accept-language", "content-type", "idempotency-key", "openai-beta"])
def test_header_that_is_passed_on_is_bounded(front: Front, name: str):
    """It is kept in the job, whose size no limit of the queue sees."""
    headers = {"authorization": f"Bearer {front.secret}", "content-type": "application/json"}
    body = json.dumps(CHAT_BODY)
    value = "application/json;" + "a" * MAX_HEADER_LENGTH
    refused = front.client.post("/v1/chat/completions", data=body, headers={**headers, name: value})
    assert (refused.status_code, refused.json["error"]["code"]) == (431, "unreadable_request")
    assert name in refused.json["error"]["message"]
    assert front.redis.exists("rq:queue:chat:default") == 0
    headers[name] = value[:MAX_HEADER_LENGTH]
    accepted = gevent.spawn(front.client.post, "/v1/chat/completions", data=body, headers=headers)
    front.reply(200, "application/json", b"{}")
    assert accepted.get().status_code == 200


def test_operations_take_no_connection_from_requests(front: Front):
    """Each waits up to a minute for a busy worker; 16 connections serve everything else."""
    operation = CredentialOperation("default", "c1", "test")
    front.redis.set(keys.lease("c1"), "a-busy-process:1")
    waiting = [gevent.spawn(front.services.operations.request, operation, 5) for _ in range(20)]
    eventually(lambda: front.redis.info("clients")["blocked_clients"] >= 20)
    assert front.services.redis.ping()
    gevent.killall(waiting)


def test_front_keeps_no_copy_of_a_body_that_waits(front: Front):
    body = GeneratedInput(8_000_000)
    environ = front.build_environ() | {"wsgi.input": body, "CONTENT_LENGTH": str(body.length)}
    tracemalloc.start()
    try:
        waiting = gevent.spawn(front.call, environ)
        eventually(lambda: front.redis.llen("rq:queue:chat:default"))
        eventually(lambda: tracemalloc.get_traced_memory()[0] < 2_000_000)
        assert tracemalloc.get_traced_memory()[1] > 8_000_000
    finally:
        tracemalloc.stop()
    front.reply(200, "application/json", b"{}")
    assert waiting.get(timeout=30) == b"{}"


def test_bodies_beyond_their_room_in_redis_are_a_429(redis: Redis, redis_url: str, unsealer: Unsealer):
    Credentials(redis).add("default", "token")
    front = Front(redis, redis_url, max_queue_bytes=20_000, max_body=20_000)
    sent = front.send(text="x" * 10_000)
    eventually(lambda: redis.llen("rq:queue:chat:default"))
    refused = front.send(text="x" * 10_000).get(timeout=30)
    assert (refused.status_code, refused.json["error"]["code"]) == (429, "queue_full")
    assert int(refused.headers["retry-after"]) >= 1
    front.reply(200, "application/json", b"{}")
    assert sent.get(timeout=30).status_code == 200
    assert front.services.body_memory.reserved == 0
    front.close()


@pytest.mark.parametrize("setting", [("maxmemory", "1mb"), ("min-replicas-to-write", "1")])
def test_redis_that_refuses_writes_is_a_503_and_logged_as_an_error(front: Front, caplog, setting: tuple[str, str]):
    name, value = setting
    before = front.redis.config_get(name)[name]
    front.redis.config_set(name, value)
    refused = front.send().get(timeout=30)
    front.redis.config_set(name, before)
    assert (refused.status_code, refused.json["error"]["code"]) == (503, "store_unavailable")
    assert [record.action for record in caplog.records if record.levelname == "ERROR"] == ["redis_refused"]
    assert "Traceback" not in caplog.text
    sent = front.send()
    front.reply(200, "application/json", b"{}")
    assert sent.get(timeout=30).status_code == 200


def test_queue_timeout_while_the_breaker_is_open_is_a_502(redis: Redis, redis_url: str):
    front = Front(redis, redis_url, queue_timeout=0.3)
    redis.hset(keys.credentials("default"), "c1", "active")
    redis.hset(keys.breaker("default"), "reason", "unreachable")
    response = front.send().get(timeout=30)
    front.close()
    assert (response.status_code, response.json["error"]["code"]) == (502, "upstream_unavailable")


def test_token_that_may_not_be_on_disk_is_a_warning_everywhere(front: Front, redis: Redis):
    redis.zadd(keys.PROCESSES, {"w1": clock.now()})
    redis.hset(keys.process("w1"), mapping={"durability": "slow", "durability_since": 5})
    assert front.client.get("/readyz").json["warnings"] == [STATES["slow"]]
    metrics = front.client.get("/metrics").text
    assert 'farm_durability{state="slow"} 1.0' in metrics
    assert 'farm_durability{state="confirmed"} 0.0' in metrics


def test_readiness_names_what_is_missing(front: Front, monkeypatch: pytest.MonkeyPatch):
    assert front.client.get("/readyz").json["reasons"] == ["no worker is running"]

    def gone(*_):
        raise RedisConnectionError("gone")

    monkeypatch.setattr(front.services.redis, "zrange", gone)
    assert front.client.get("/readyz").json["reasons"] == ["Redis does not respond"]
    assert front.client.get("/healthz").status_code == 200


def test_doubled_and_trailing_slashes_are_ignored(front: Front):
    for path in ("/v1//chat/completions", "/v1//chat//completions/"):
        sent = front.send(path)
        front.reply(200, "application/json", b"{}")
        assert sent.get(timeout=30).status_code == 200


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/v1/chat/completions", "m"),
        ("/v1/chat/completions/v1/chat/completions", "m"),
        ("/openai/v1/chat/completions", "m"),
        ("/openai/deployments/org%2Fm%C3%A9/chat/completions?api-version=2024-10-21&key=sk-1&x=y", "org/mé"),
    ],
)
@pytest.mark.parametrize("header", ["authorization", "api-key", "x-api-key"])
def test_paths_and_keys_of_other_clients_serve(front: Front, path: str, model: str, header: str):
    headers = {header: f"Bearer {front.secret}" if header == "authorization" else front.secret}
    sent = gevent.spawn(front.client.post, path, json=CHAT_BODY, headers=headers)
    queue = front.services.request_services.queue
    eventually(lambda: queue.count_waiting("default") == 1)
    (body,) = [front.redis.get(key) for key in front.redis.scan_iter("farm:body:*")]
    assert json.loads(body) == CHAT_BODY | {"model": model}
    (job,) = front.redis.lrange("rq:queue:chat:default", 0, -1)
    request = decode_request(front.redis.hget(f"rq:job:{job.decode()}", "data"))
    assert request and request.model == model
    assert request.path == "/chat/completions" + ("?api-version=2024-10-21" if "api-version" in path else "")
    front.reply(200, "application/json", b"{}")
    assert sent.get(timeout=30).status_code == 200


def test_limit_headers_come_with_replies_and_refusals(front: Front):
    front.secret, _ = ApiKeys(front.redis).create("bound", rpm=1, tpm=1000, max_waiting=0)
    sent = front.send()
    front.reply(200, "application/json", b"{}")
    response = sent.get(timeout=30)
    assert response.headers["x-ratelimit-limit-requests"] == "1"
    assert response.headers["x-ratelimit-remaining-requests"] == "0"
    assert response.headers["x-ratelimit-reset-requests"] == "1m0s"
    assert int(response.headers["x-ratelimit-remaining-tokens"]) < 1000
    assert response.headers["x-queue-position"] == "1"
    refused = front.send().get(timeout=30)
    assert refused.status_code == 429
    assert refused.json["error"]["code"] == "rate_limit_exceeded"
    assert 59 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert len(front.services.hub) == 0


def test_caller_who_leaves_the_queue_frees_its_place(front: Front):
    front.secret, key = ApiKeys(front.redis).create("bound", concurrency=1, quota_requests=5, max_waiting=0)
    sent = front.send(stream=True)
    response = sent.get(timeout=30)
    assert front.send().get(timeout=30).json["error"]["code"] == "rate_limit_exceeded"
    response.close()
    assert front.redis.hget(keys.quota(key.id), "requests") == b"0"
    assert front.redis.zcard(keys.running_requests(key.id)) == 0


def test_held_request_goes_on_when_the_minute_has_moved_on(front: Front):
    front.secret, key = ApiKeys(front.redis).create("bound", rpm=1)
    first = front.send()
    front.reply(200, "application/json", b"{}")
    assert first.get(timeout=30).status_code == 200
    # As if the first request had been a minute ago, but for two seconds.
    recent = keys.recent_requests(key.id)
    front.redis.lset(recent, 0, float(front.redis.lindex(recent, 0)) - 58)
    second = front.send()
    front.reply(200, "application/json", b"{}")
    assert second.get(timeout=30).status_code == 200


def test_held_request_leaves_when_its_time_is_up(redis: Redis, redis_url: str, unsealer: Unsealer):
    Credentials(redis).add("default", "token")
    front = Front(redis, redis_url, queue_timeout=1.0)
    try:
        front.secret, key = ApiKeys(redis).create("bound", concurrency=1)
        redis.sadd(f"farm:limit:started:{key.id}", "req_of_another_front")
        redis.hset("rq:job:req_of_another_front", "status", "started")
        refused = front.send().get(timeout=30)
        assert (refused.status_code, refused.json["error"]["code"]) == (429, "queue_timeout")
        assert redis.keys("farm:limit:held:*") == []
    finally:
        front.close()


def test_key_sees_only_its_own_models(redis: Redis, redis_url: str, unsealer: Unsealer):
    pools = (PoolSettings(name="a", models=("small", "large")), PoolSettings(name="b", models=("other",)))
    front = Front(redis, redis_url, pools=pools)
    Credentials(redis).add("a", "token")
    try:
        front.secret, _ = ApiKeys(redis).create("bound", pools=["a"], models=["s*", "o*"])
        listed = front.send("/v1/models", method="GET").get(timeout=30).json["data"]
        assert [model["id"] for model in listed] == ["small"]
        for model in ("large", "other", "none"):
            refused = front.send(model=model).get(timeout=30)
            assert (refused.status_code, refused.json["error"]["code"]) == (404, "model_not_found")
    finally:
        front.close()


def test_changed_key_takes_effect(front: Front):
    store = ApiKeys(front.redis)
    front.secret, key = store.create("bound")
    sent = front.send(stream=True)
    sent.get(timeout=30).close()
    store.update(key.id, {"models": ["another"]})
    eventually(lambda: front.send(stream=True).get(timeout=30).status_code == 404)
    store.update(key.id, {"enabled": False})
    eventually(lambda: front.send().get(timeout=30).status_code == 401)
