"""The model list of an upstream is one for all callers, whatever they send, and however many they are."""

from collections.abc import Iterator

import gevent
import pytest
from redis import Redis

from shared import keys
from shared.api_keys.store import ApiKeys
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.protocol.job_data import decode_request
from shared.settings.schema import PoolSettings
from tests.integration.web.test_app import Front
from tests.waiting import eventually
from web.model_lists import FRESH_SECONDS, KEPT_SECONDS

ONE = b'{"data": [{"id": "one"}]}'


@pytest.fixture
def front(redis: Redis, redis_url: str, unsealer: Unsealer) -> Iterator[Front]:
    Credentials(redis).add("default", "token")
    front = Front(redis, redis_url)
    yield front
    front.close()


def count_jobs(front: Front) -> int:
    return int(front.redis.llen("rq:queue:chat:default"))


def make_stale(front: Front) -> None:
    front.redis.expire(keys.models("default"), KEPT_SECONDS - FRESH_SECONDS - 1)
    gevent.sleep(1.1)


def test_model_list_is_requested_once_and_cached(front: Front):
    sent = [front.send("/v1/models", method="GET") for _ in range(20)]
    front.reply(200, "application/json", ONE)
    assert [response.get(timeout=30).json["data"] for response in sent] == 20 * [[{"id": "one"}]]
    assert front.send("/v1/models/one", method="GET").get(timeout=30).json == {"id": "one"}
    assert count_jobs(front) == 0


def test_list_is_asked_for_without_the_callers_query_and_headers(front: Front):
    headers = {"authorization": f"Bearer {front.secret}", "openai-beta": "x", "accept-language": "de"}
    sent = gevent.spawn(front.client.get, "/v1/models?after=zzz", headers=headers)
    eventually(lambda: count_jobs(front) == 1)
    (job,) = front.redis.lrange("rq:queue:chat:default", 0, -1)
    request = decode_request(front.redis.hget(f"rq:job:{job.decode()}", "data"))
    assert request and (request.path, dict(request.headers), request.key) == (
        "/models",
        {"accept": "application/json"},
        "-",
    )
    front.reply(200, "application/json", ONE)
    assert sent.get(timeout=30).json["data"] == [{"id": "one"}]


def test_stale_list_is_served_while_it_is_renewed_by_one_job(front: Front):
    sent = front.send("/v1/models", method="GET")
    front.reply(200, "application/json", ONE)
    sent.get(timeout=30)
    make_stale(front)
    for _ in range(5):
        listed = front.send("/v1/models", method="GET").get(timeout=30).json["data"]
        assert listed == [{"id": "one"}]
    front.reply(200, "application/json", b'{"data": [{"id": "two"}]}')
    eventually(lambda: front.send("/v1/models", method="GET").get(timeout=30).json["data"] == [{"id": "two"}])
    assert count_jobs(front) == 0


def test_list_that_cannot_be_renewed_is_kept(front: Front):
    sent = front.send("/v1/models", method="GET")
    front.reply(200, "application/json", ONE)
    sent.get(timeout=30)
    make_stale(front)
    front.send("/v1/models", method="GET").get(timeout=30)
    front.reply(500, "application/json", b"{}")
    eventually(lambda: front.redis.get(keys.models_renewal("default")))
    gevent.sleep(1.1)
    assert front.send("/v1/models", method="GET").get(timeout=30).json["data"] == [{"id": "one"}]
    assert count_jobs(front) == 0


@pytest.mark.parametrize(("status", "body"), [(500, b"{}"), (404, b"{}"), (200, b"<html>"), (200, b"{}")])
def test_failure_is_a_502_and_remembered_for_all(front: Front, status: int, body: bytes):
    sent = front.send("/v1/models", method="GET")
    front.reply(status, "application/json", body)
    assert sent.get(timeout=30).status_code == 502
    assert not front.redis.exists(keys.models("default"))
    responses = [front.send("/v1/models", method="GET").get(timeout=30) for _ in range(5)]
    assert [response.status_code for response in responses] == 5 * [502]
    assert count_jobs(front) == 0
    assert 0 < front.redis.ttl(keys.models_renewal("default")) <= 10


@pytest.mark.parametrize("body", [b'["a"]', b'{"models": [{"name": "a"}]}'])
def test_list_of_another_shape_is_listed_in_openais(front: Front, body: bytes):
    sent = front.send("/v1/models", method="GET")
    front.reply(200, "application/json", body)
    listed = sent.get(timeout=30).json
    assert (listed["object"], [model["id"] for model in listed["data"]]) == ("list", ["a"])
    assert front.send("/v1/models/a", method="GET").get(timeout=30).json["id"] == "a"


def test_caller_does_not_wait_for_a_busy_pool_and_a_later_one_gets_the_list(
    front: Front, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("web.model_lists.MAX_WAIT_SECONDS", 0.3)
    responses = [sent.get(timeout=20) for sent in [front.send("/v1/models", method="GET") for _ in range(5)]]
    assert {(response.status_code, response.json["error"]["code"]) for response in responses} == {
        (429, "models_not_ready")
    }
    assert int(responses[0].headers["retry-after"]) > 0
    front.reply(200, "application/json", ONE)
    eventually(lambda: front.send("/v1/models", method="GET").get(timeout=20).json.get("data") == [{"id": "one"}])
    assert count_jobs(front) == 0


def test_lists_of_several_pools_are_waited_for_at_the_same_time(
    redis: Redis, redis_url: str, unsealer: Unsealer, monkeypatch: pytest.MonkeyPatch
):
    pools = tuple(PoolSettings(name=f"p{number}") for number in range(3))
    for pool in pools:
        Credentials(redis).add(pool.name, f"token of {pool.name}")
    front = Front(redis, redis_url, pools=pools)
    sent = front.send("/v1/models", method="GET")
    eventually(lambda: all(redis.llen(f"rq:queue:chat:{pool.name}") == 1 for pool in pools))
    assert not sent.ready()
    sent.kill()
    front.close()


def test_list_takes_nothing_of_the_callers_limits(front: Front, redis: Redis):
    front.secret, key = ApiKeys(redis).create("limited", rpm=1)
    for _ in range(3):
        sent = front.send("/v1/models", method="GET")
        if not redis.exists(keys.models("default")):
            front.reply(200, "application/json", ONE)
        assert sent.get(timeout=30).status_code == 200
    assert not redis.exists(keys.recent_requests(key.id))


def test_another_fronts_fetch_is_waited_for(front: Front):
    front.redis.set(keys.models_renewal("default"), b"", ex=45)
    sent = front.send("/v1/models", method="GET")
    gevent.sleep(0.3)
    front.redis.set(keys.models("default"), ONE, ex=KEPT_SECONDS)
    assert sent.get(timeout=30).json["data"] == [{"id": "one"}]
    assert count_jobs(front) == 0


def test_fronts_that_miss_the_list_at_once_make_one_job(front: Front, redis_url: str):
    other = Front(front.redis, redis_url)
    try:
        sent = [caller_front.send("/v1/models", method="GET") for caller_front in (front, other) for _ in range(5)]
        eventually(lambda: count_jobs(front) == 1)
        gevent.sleep(0.3)
        assert count_jobs(front) == 1
        (job,) = front.redis.lrange("rq:queue:chat:default", 0, -1)
        request = decode_request(front.redis.hget(f"rq:job:{job.decode()}", "data"))
        fetching = front if request and request.front == front.services.hub.front_id else other
        fetching.reply(200, "application/json", ONE)
        assert [response.get(timeout=30).json["data"] for response in sent] == 10 * [[{"id": "one"}]]
    finally:
        other.close()
