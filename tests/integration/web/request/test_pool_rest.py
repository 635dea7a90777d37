"""While all credentials of a pool rest, its callers are told when the first one comes back."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from redis import Redis
from werkzeug.test import TestResponse

from shared import clock, keys
from shared.credentials.pool_rest import API_KEYS_REFUSED
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.settings.schema import PoolSettings
from tests.integration.harness import WorkerHarness, collect_frames
from tests.integration.web.test_app import Front
from tests.waiting import eventually
from web import model_lists, single_flight_cache
from web.request.capacity.rest_monitor import RestMonitor

#: Seconds that a machine may take between a deadline and the reply that counts from it.
STALL = 20


class RestingPool:
    """A front, and the credentials of its pools, which rest as the test says."""

    def __init__(self, redis: Redis, redis_url: str, unsealer: Unsealer, **settings: Any) -> None:
        self.redis = redis
        self.store = Credentials(redis)
        self.front = Front(redis, redis_url, **settings)
        self.numbers = count()
        services = self.front.services
        self.monitor = RestMonitor(services.availability, services.request_services.queued)

    def add(self, seconds: float = 0, pool: str = "default") -> str:
        """Adds a credential that rests for so many seconds, 0 for one in service."""
        credential_id, _ = self.store.add(pool, f"token-{next(self.numbers)}")
        self.rest(credential_id, seconds, pool)
        return credential_id

    def rest(self, credential_id: str, seconds: float, pool: str = "default") -> None:
        if seconds:
            self.store.set_state(pool, credential_id, "cooling", "rate_limited", clock.now() + seconds)
        else:
            self.store.enable(pool, credential_id)

    def refuse(self, **fields: Any) -> TestResponse:
        """Sends a request that is refused at once."""
        response: TestResponse = self.front.send(**fields).get(timeout=30)
        assert (response.status_code, response.json["error"]["code"]) == (429, "queue_timeout")
        return response

    def queue(self, position: int = 1, **fields: Any) -> Any:
        """Sends a request, and waits until it is queued at that position."""
        sent = self.front.send(**fields)
        eventually(lambda: self.front.services.request_services.queue.count_waiting("default") == position)
        return sent


StartPool = Callable[..., RestingPool]


@pytest.fixture
def start_pool(
    redis: Redis, redis_url: str, unsealer: Unsealer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StartPool]:
    """Starts fronts that cache nothing, so that the test need not wait for what it changes."""
    monkeypatch.setattr(single_flight_cache, "TTL_SECONDS", 0.0)
    monkeypatch.setattr(model_lists, "MAX_WAIT_SECONDS", 0.5)
    pools: list[RestingPool] = []

    def start(**settings: Any) -> RestingPool:
        pools.append(RestingPool(redis, redis_url, unsealer, **settings))
        return pools[-1]

    yield start
    for pool in pools:
        pool.front.close()


def retry_after(response: TestResponse) -> int:
    return int(response.headers["retry-after"])


def test_request_that_the_rest_outlasts_is_refused_at_once_with_the_earliest_end(start_pool: StartPool):
    pool = start_pool(queue_timeout=300)
    for seconds in (5000, 400, 900):
        pool.add(seconds)
    refused = pool.refuse()
    assert 400 - STALL < retry_after(refused) <= 400
    assert refused.headers["x-should-retry"] == "false"
    assert pool.redis.llen("rq:queue:chat:default") == 0
    assert pool.redis.keys("farm:body:*") == []


def test_short_rest_is_heeded_by_sdks(start_pool: StartPool):
    pool = start_pool(queue_timeout=5)
    pool.add(50)
    refused = pool.refuse()
    assert 50 - STALL < retry_after(refused) <= 50
    assert "x-should-retry" not in refused.headers


def test_refused_requests_come_back_one_after_the_other_but_not_much_later(start_pool: StartPool, redis: Redis):
    pool = start_pool(queue_timeout=5)
    pool.add(400)
    redis.hset(keys.fair_queue("default"), "cost", 10)
    times = [retry_after(pool.refuse()) for _ in range(6)]
    assert times[1] - times[0] in (9, 10, 11)
    assert min(times) > 400 - STALL
    assert max(times) <= 430


def test_rest_that_ends_in_time_is_waited_for_and_told(start_pool: StartPool, redis: Redis):
    pool = start_pool(queue_timeout=300)
    pool.add(200)
    redis.hset(keys.fair_queue("default"), "cost", 10)
    first, second = pool.queue(1), pool.queue(2)
    pool.front.reply_to_next()
    pool.front.reply_to_next()
    etas = [int(sent.get(timeout=30).headers["x-queue-eta-ms"]) / 1000 for sent in (first, second)]
    assert 200 - STALL < etas[0] <= 200
    assert etas[0] + 10 - STALL < etas[1] <= 210


def test_full_queue_of_a_resting_pool_adds_the_queue_ahead_to_the_rest(start_pool: StartPool, redis: Redis):
    pool = start_pool(max_queue=1, queue_timeout=300)
    pool.add(200)
    redis.hset(keys.fair_queue("default"), "cost", 50)
    sent = pool.queue()
    refused = pool.front.send().get(timeout=30)
    assert (refused.status_code, refused.json["error"]["code"]) == (429, "queue_full")
    assert 250 - STALL < retry_after(refused) <= 250
    pool.front.reply_to_next()
    assert sent.get(timeout=30).status_code == 200


def test_request_that_has_waited_in_vain_is_told_the_end_of_the_rest(start_pool: StartPool):
    pool = start_pool(queue_timeout=1.0)
    credential_id = pool.add()
    sent = pool.queue()
    pool.rest(credential_id, 400)
    refused = sent.get(timeout=30)
    assert (refused.status_code, refused.json["error"]["code"]) == (429, "queue_timeout")
    assert 400 - STALL < retry_after(refused) <= 400


def test_pool_with_a_credential_in_service_or_one_whose_rest_is_over_serves(start_pool: StartPool, redis: Redis):
    pool = start_pool(queue_timeout=300)
    resting, other = pool.add(400), pool.add()
    sent = pool.queue()
    pool.front.reply_to_next()
    assert sent.get(timeout=30).status_code == 200
    pool.rest(other, 400)
    redis.hset(keys.credential(resting), "until", clock.now() - 1)
    sent = pool.queue()
    pool.front.reply_to_next()
    assert sent.get(timeout=30).status_code == 200


def test_queued_request_ends_once_its_pool_rests_for_longer_than_it_may_wait(start_pool: StartPool):
    pool = start_pool(queue_timeout=300)
    credential_id = pool.add()
    sent = pool.queue()
    pool.rest(credential_id, 5000)
    pool.monitor.check()
    for _ in range(5):
        assert pool.front.services.request_services.queue.count_waiting("default") == 1
    pool.monitor.check()
    refused = sent.get(timeout=30)
    assert (refused.status_code, refused.json["error"]["code"]) == (429, "queue_timeout")
    assert 5000 - STALL < retry_after(refused) <= 5000
    assert pool.front.services.request_services.queued == {}


def test_queued_request_whose_pool_comes_back_in_time_goes_on_waiting(start_pool: StartPool):
    pool = start_pool(queue_timeout=300)
    credential_id = pool.add()
    sent = pool.queue()
    pool.rest(credential_id, 200)
    pool.monitor.check()
    pool.monitor.check()
    pool.front.reply_to_next()
    assert sent.get(timeout=30).status_code == 200


def test_running_request_is_left_alone_when_its_pool_rests(start_pool: StartPool):
    pool = start_pool(queue_timeout=300)
    credential_id = pool.add()
    sent = pool.queue(stream=True)
    request_id = pool.front.reply(200, "text/event-stream", b"data: 1\n\n", end=None)
    eventually(lambda: not pool.front.services.request_services.queued)
    pool.rest(credential_id, 5000)
    pool.monitor.check()
    pool.monitor.check()
    pool.front.continue_reply(request_id, 2, b"data: 2\n\n")
    assert b"data: 2" in sent.get(timeout=30).data


def test_request_goes_to_a_pool_that_does_not_rest(start_pool: StartPool):
    pools = (PoolSettings(name="first"), PoolSettings(name="default", priority=1))
    pool = start_pool(queue_timeout=300, pools=pools)
    pool.add(400, "first")
    pool.add()
    sent = pool.queue()
    pool.front.reply_to_next()
    assert sent.get(timeout=30).status_code == 200


def test_pool_whose_api_keys_are_all_refused_says_so_at_once(start_pool: StartPool, redis: Redis):
    pool = start_pool(queue_timeout=300)
    for seconds in (100, 50):
        redis.hset(keys.credential(pool.add(seconds)), "reason", API_KEYS_REFUSED)
    refused = pool.front.send().get(timeout=30)
    assert (refused.status_code, refused.json["error"]["code"]) == (502, "upstream_auth_failed")
    assert 50 - STALL < retry_after(refused) <= 50
    pool.add(200)
    pool.queue()


def test_queued_requests_end_when_all_api_keys_are_refused(start_pool: StartPool, redis: Redis):
    pool = start_pool(queue_timeout=300)
    credential_id = pool.add()
    sent = pool.queue()
    pool.rest(credential_id, 50)
    redis.hset(keys.credential(credential_id), "reason", API_KEYS_REFUSED)
    pool.monitor.check()
    pool.monitor.check()
    refused = sent.get(timeout=30)
    assert (refused.status_code, refused.json["error"]["code"]) == (502, "upstream_auth_failed")


def test_model_list_that_nobody_can_fetch_tells_the_end_of_the_rest(start_pool: StartPool):
    pool = start_pool(queue_timeout=300)
    credential_id = pool.add(400)
    refused = pool.front.send("/v1/models", method="GET").get(timeout=30)
    assert (refused.status_code, refused.json["error"]["code"]) == (429, "queue_timeout")
    assert 400 - STALL < retry_after(refused) <= 400
    pool.rest(credential_id, 0)
    pool.rest(credential_id, 25)
    refused = pool.front.send("/v1/models", method="GET").get(timeout=30)
    assert (refused.status_code, refused.json["error"]["code"]) == (429, "models_not_ready")
    assert 25 - STALL < retry_after(refused) <= 25


def test_accounts_that_have_used_what_they_had_tell_callers_when_they_get_more(
    start_harness: Callable[..., WorkerHarness], start_pool: StartPool
):
    harness = start_harness(credentials=2)
    harness.upstream.allowances(requests=1, window=200)
    for number in range(2):
        assert collect_frames(harness.enqueue(f"req_{number}"))
    eventually(lambda: set(harness.redis.hvals(keys.credentials("default"))) == {b"cooling"})
    pool = start_pool(queue_timeout=10)
    assert 100 < retry_after(pool.refuse()) <= 200


def limit(pool: RestingPool, credential_id: str, model: str, seconds: float) -> None:
    """As a worker records that a credential rests for a model."""
    until = clock.now() + seconds
    pool.redis.hset(keys.resting_models(credential_id), model, until)
    pool.redis.zadd(keys.resting_by_pool("default"), {model: until})


def test_pool_rests_for_the_model_that_all_its_credentials_rest_for(start_pool: StartPool):
    pool = start_pool(queue_timeout=300)
    for seconds in (5000, 400):
        limit(pool, pool.add(), "A", seconds)
    assert 400 - STALL < retry_after(pool.refuse(model="A")) <= 400
    pool.queue(1, model="B")
    limit(pool, pool.add(), "C", 5000)
    pool.queue(2, model="A")


def test_queued_requests_end_when_their_model_begins_to_rest(start_pool: StartPool):
    pool = start_pool(queue_timeout=300)
    credential_id = pool.add()
    limited, other = pool.queue(1, model="A"), pool.queue(2, model="B")
    limit(pool, credential_id, "A", 5000)
    pool.monitor.check()
    pool.monitor.check()
    assert limited.get(timeout=30).status_code == 429
    assert not other.ready()
    assert pool.front.services.request_services.queue.count_waiting("default") == 1


def test_credential_that_rests_because_of_a_model_may_be_tried_for_another(start_pool: StartPool, redis: Redis):
    """It is not known whether its limits are per model: a request that is never admitted could not find out."""
    pool = start_pool(queue_timeout=300)
    credential_id = pool.add(5000)
    limit(pool, credential_id, "A", 5000)
    assert 5000 - STALL < retry_after(pool.refuse(model="A")) <= 5000
    pool.queue(1, model="B")
    redis.hset(keys.account_limits("default"), mapping={"counts": "account", "retry_at": clock.now() + 600})
    pool.refuse(model="B")
    redis.hset(keys.account_limits("default"), "retry_at", clock.now() - 1)
    pool.queue(2, model="B")


def test_mapped_name_rests_with_the_upstreams_model(start_pool: StartPool):
    pool = start_pool(queue_timeout=300, pools=(PoolSettings(model_map={"fast": "A"}),))
    limit(pool, pool.add(), "A", 400)
    pool.refuse(model="fast")
