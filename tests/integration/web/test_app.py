"""The front's rarer ways, by Flask's test client on a real Redis without workers."""

from collections.abc import Iterator

import gevent
import pytest
from flask.testing import FlaskClient
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from shared import keys
from shared.api_keys.admin_tokens import AdminTokens
from shared.api_keys.store import ApiKeys
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.protocol.messages import Frame, FrameKind, Head
from shared.settings.schema import PoolSettings, Settings
from tests.waiting import eventually
from web.app import create_app
from web.services import EXTENSION, WebServices

BODY = {"model": "m", "messages": []}


class Front:
    """An app whose workers are played by the test."""

    def __init__(self, redis: Redis, redis_url: str, **settings) -> None:
        self.redis = redis
        app = create_app(Settings(redis_url=redis_url, **settings))
        self.parts: WebServices = app.extensions[EXTENSION]
        self.listener = gevent.spawn(self.parts.hub._listen)
        assert self.parts.hub._subscribed.wait(5)
        self.client: FlaskClient = app.test_client()
        self.secret, _ = ApiKeys(redis).create("test")

    def ask(self, path: str = "/v1/chat/completions", **fields):
        headers = {"authorization": f"Bearer {self.secret}"}
        if fields.pop("method", "POST") == "GET":
            return gevent.spawn(self.client.get, path, headers=headers)
        return gevent.spawn(self.client.post, path, json=BODY | fields, headers=headers)

    def answer(self, status: int, content_type: str, *parts: bytes, end: FrameKind | None = FrameKind.END) -> str:
        """Plays the worker for the request that waits; returns its id."""
        queue = self.parts.request_services.queue
        eventually(lambda: queue.count_waiting("default") == 1)
        request_id = self.redis.lpop("rq:queue:chat:default").decode()
        head = Head(status, {"content-type": content_type}, 1, 0, 0).encode()
        frames = [Frame(FrameKind.HEAD, 0, head), *(Frame(FrameKind.DATA, i, p) for i, p in enumerate(parts, 1))]
        if end:
            frames.append(Frame(end, len(frames), b""))
        channel = self.parts.hub.channel(request_id)
        self.redis.publish(channel, b"".join(frame.encode() for frame in frames))
        return request_id

    def close(self) -> None:
        self.listener.kill()


@pytest.fixture
def front(redis: Redis, redis_url: str, unsealer: Unsealer) -> Iterator[Front]:
    Credentials(redis).add("default", "token")
    made = Front(redis, redis_url, keepalive=0.1)
    yield made
    made.close()


def test_an_answer_leaves_no_mailbox(front: Front):
    for stream, kind in ((False, "application/json"), (True, "text/event-stream"), (False, "audio/mpeg")):
        asked = front.ask(stream=stream)
        front.answer(200, kind, b'{"a": 1}')
        response = asked.get(timeout=5)
        assert response.data.endswith(b'{"a": 1}')
        response.close()
    assert len(front.parts.hub) == 0


def test_a_whole_answer_to_a_stream_that_began_late_comes_as_one_event(front: Front):
    asked = front.ask(stream=True)
    response = asked.get(timeout=5)
    chunks = response.iter_encoded()
    assert next(chunks) == b": keep-alive\n\n"
    front.answer(400, "application/json", b'{"error":\n{"message": "no"}}')
    assert b"".join(chunks).endswith(b'data: {"error": {"message": "no"}}\n\n')
    response.close()
    assert len(front.parts.hub) == 0


def test_a_binary_answer_that_is_cut_breaks_the_connection(front: Front):
    asked = front.ask("/v1/audio/speech")
    request_id = front.answer(200, "audio/mpeg", b"half", end=None)
    mailbox = next(iter(front.parts.hub._mailboxes.values()))
    assert mailbox.request_id == request_id
    eventually(lambda: mailbox._next_number)
    mailbox.abandon()
    with pytest.raises(ConnectionResetError):
        asked.get(timeout=5).get_data()


def test_the_model_list_is_asked_for_once_and_kept(front: Front):
    asked = front.ask("/v1/models", method="GET")
    front.answer(200, "application/json", b'{"data": [{"id": "one"}]}')
    assert asked.get(timeout=5).json["data"] == [{"id": "one"}]
    again = front.ask("/v1/models/one", method="GET")
    assert again.get(timeout=5).json == {"id": "one"}


@pytest.mark.parametrize(("status", "body"), [(500, b"{}"), (200, b"<html>"), (200, b"[]")])
def test_a_model_list_that_can_not_be_had_is_a_502(front: Front, status: int, body: bytes):
    asked = front.ask("/v1/models", method="GET")
    front.answer(status, "application/json", body)
    assert asked.get(timeout=5).status_code == 502
    assert not front.redis.exists(keys.models("default"))


def test_configured_models_are_listed_and_others_refused(redis: Redis, redis_url: str, unsealer: Unsealer):
    pools = (PoolSettings(models=("a",), model_map={"b": "a"}), PoolSettings(name="empty"))
    front = Front(redis, redis_url, pools=pools[:1])
    listed = front.ask("/v1/models", method="GET").get(timeout=5)
    assert [model["id"] for model in listed.json["data"]] == ["a", "b"]
    refused = front.ask(model="c").get(timeout=5)
    assert (refused.status_code, refused.json["error"]["code"]) == (404, "model_not_found")
    front.close()


def test_a_mapped_model_reaches_the_upstream_by_its_name_there(redis: Redis, redis_url: str, unsealer: Unsealer):
    Credentials(redis).add("default", "token")
    front = Front(redis, redis_url, pools=(PoolSettings(model_map={"gpt": "theirs"}),))
    asked = front.ask(model="gpt")
    eventually(lambda: front.parts.request_services.queue.count_waiting("default") == 1)
    (body,) = [redis.get(key) for key in redis.scan_iter("farm:body:*")]
    assert b'"theirs"' in body
    front.answer(200, "application/json", b"{}")
    assert asked.get(timeout=5).status_code == 200
    front.close()


def test_a_redis_that_goes_is_a_503_and_a_mistake_of_ours_a_500(front: Front, monkeypatch: pytest.MonkeyPatch):
    def gone(*_):
        raise RedisConnectionError("gone")

    monkeypatch.setattr("shared.redis_connection.retry.REDIS_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(front.parts.request_services.queue, "enqueue", gone)
    away = front.ask().get(timeout=5)
    assert (away.status_code, away.json["error"]["code"]) == (503, "store_unavailable")
    monkeypatch.setattr(front.parts.request_services.queue, "enqueue", lambda *_: 1 / 0)
    ours = front.ask().get(timeout=5)
    assert (ours.status_code, ours.json["error"]["code"]) == (500, "internal_error")
    assert len(front.parts.hub) == 0


def test_a_redis_that_is_away_for_a_moment_is_waited_for_and_nothing_is_enqueued_twice(
    front: Front, monkeypatch: pytest.MonkeyPatch
):
    enqueue, tries = front.parts.request_services.queue.enqueue, []

    def flaky(*given):
        tries.append(given)
        if len(tries) in (1, 3):
            enqueue(*given)
        if len(tries) < 4:
            raise RedisConnectionError("the answer was lost")
        return enqueue(*given)

    monkeypatch.setattr(front.parts.request_services.queue, "enqueue", flaky)
    asked = front.ask()
    eventually(lambda: len(tries) == 4)
    assert front.parts.request_services.queue.count_waiting("default") == 1
    front.answer(200, "application/json", b"{}")
    assert asked.get(timeout=5).status_code == 200


@pytest.mark.parametrize("setting", [("maxmemory", "1mb"), ("min-replicas-to-write", "1")])
def test_a_redis_that_takes_no_writes_is_a_503_and_an_alarm(front: Front, caplog, setting: tuple[str, str]):
    name, value = setting
    before = front.redis.config_get(name)[name]
    front.redis.config_set(name, value)
    refused = front.ask().get(timeout=5)
    front.redis.config_set(name, before)
    assert (refused.status_code, refused.json["error"]["code"]) == (503, "store_unavailable")
    assert [record.action for record in caplog.records if record.levelname == "ERROR"] == ["redis_refused"]
    assert "Traceback" not in caplog.text
    asked = front.ask()
    front.answer(200, "application/json", b"{}")
    assert asked.get(timeout=5).status_code == 200


def test_requests_that_waited_for_an_upstream_that_is_down_end_with_a_502(redis: Redis, redis_url: str):
    front = Front(redis, redis_url, queue_timeout=0.3)
    redis.hset(keys.credentials("default"), "c1", "active")
    redis.hset(keys.breaker("default"), "reason", "unreachable")
    answer = front.ask().get(timeout=5)
    front.close()
    assert (answer.status_code, answer.json["error"]["code"]) == (502, "upstream_unavailable")


def test_readiness_says_what_is_missing(front: Front, monkeypatch: pytest.MonkeyPatch):
    assert front.client.get("/readyz").json["reasons"] == ["no worker is running"]

    def gone(*_):
        raise RedisConnectionError("gone")

    monkeypatch.setattr(front.parts.redis, "zrange", gone)
    assert front.client.get("/readyz").json["reasons"] == ["Redis does not respond"]
    assert front.client.get("/healthz").status_code == 200


def test_doubled_slashes_and_one_at_the_end_mean_the_same(front: Front):
    for path in ("/v1//chat/completions", "/v1//chat//completions/"):
        asked = front.ask(path)
        front.answer(200, "application/json", b"{}")
        assert asked.get(timeout=5).status_code == 200


def test_after_ten_wrong_tokens_the_right_one_still_opens(front: Front, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("web.admin.login.DELAY_STEP_SECONDS", 0.0)
    secret, _ = AdminTokens(front.redis).create("console", "admin")
    statuses = [front.client.post("/admin/login", data={"token": "wrong"}).status_code for _ in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    assert front.client.post("/admin/login", data={"token": secret}).status_code == 302
    assert front.client.post("/admin/logout").status_code == 302
    assert front.client.get("/admin/", headers={"accept": "text/html"}).status_code == 302


def test_a_caller_sees_the_limits_of_his_key_with_answers_and_with_refusals(front: Front):
    front.secret, _ = ApiKeys(front.redis).create("bound", rpm=1, tpm=1000)
    asked = front.ask()
    front.answer(200, "application/json", b"{}")
    answered = asked.get(timeout=5)
    assert answered.headers["x-ratelimit-limit-requests"] == "1"
    assert answered.headers["x-ratelimit-remaining-requests"] == "0"
    assert answered.headers["x-ratelimit-reset-requests"] == "1m0s"
    assert int(answered.headers["x-ratelimit-remaining-tokens"]) < 1000
    assert answered.headers["x-queue-position"] == "1"
    refused = front.ask().get(timeout=5)
    assert refused.status_code == 429
    assert refused.json["error"]["code"] == "rate_limit_exceeded"
    assert 59 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert len(front.parts.hub) == 0


def test_a_caller_who_leaves_the_queue_gives_his_place_back(front: Front):
    front.secret, key = ApiKeys(front.redis).create("bound", concurrency=1, quota_requests=5)
    asked = front.ask(stream=True)
    response = asked.get(timeout=5)
    assert front.ask().get(timeout=5).json["error"]["code"] == "rate_limit_exceeded"
    response.close()
    assert front.redis.hget(keys.quota(key.id), "requests") == b"0"
    assert front.redis.zcard(keys.running_requests(key.id)) == 0


def test_a_key_sees_its_own_models_only(redis: Redis, redis_url: str, unsealer: Unsealer):
    pools = (PoolSettings(name="a", models=("small", "large")), PoolSettings(name="b", models=("other",)))
    made = Front(redis, redis_url, pools=pools)
    Credentials(redis).add("a", "token")
    try:
        made.secret, _ = ApiKeys(redis).create("bound", pools=["a"], models=["s*", "o*"])
        listed = made.ask("/v1/models", method="GET").get(timeout=5).json["data"]
        assert [one["id"] for one in listed] == ["small"]
        for model in ("large", "other", "none"):
            refused = made.ask(model=model).get(timeout=5)
            assert (refused.status_code, refused.json["error"]["code"]) == (404, "model_not_found")
    finally:
        made.close()


def test_a_change_of_a_key_is_in_force_within_two_seconds(front: Front):
    store = ApiKeys(front.redis)
    front.secret, key = store.create("bound")
    asked = front.ask(stream=True)
    asked.get(timeout=5).close()
    store.update(key.id, {"models": ["another"]})
    eventually(lambda: front.ask(stream=True).get(timeout=5).status_code == 404, within=2)
    store.update(key.id, {"enabled": False})
    eventually(lambda: front.ask().get(timeout=5).status_code == 401, within=2)
