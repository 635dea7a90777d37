"""The billing routes show the calling key's quota and usage."""

import time

import pytest
from flask.testing import FlaskClient
from redis import Redis
from werkzeug.test import TestResponse

from shared import keys
from shared.api_keys.limits import quota_period
from shared.api_keys.store import ApiKeys
from shared.observability.request_log import LogEntry, RequestLog
from shared.settings.schema import Settings
from web.app import create_app
from workers.process.usage_rollup import UsageRollup


@pytest.fixture
def client(redis: Redis, redis_url: str) -> FlaskClient:
    return create_app(Settings(redis_url=redis_url)).test_client()


def get(client: FlaskClient, secret: str, path: str) -> TestResponse:
    return client.get(f"/v1/dashboard/billing/{path}", headers={"authorization": f"Bearer {secret}"})


def test_key_sees_its_own_quota_and_usage(client: FlaskClient, redis: Redis):
    secret, key = ApiKeys(redis).create("k", quota_tokens=50_000, quota_reset="daily", expires_at=2e9)
    redis.hset(keys.quota(key.id), mapping={"period": quota_period(key, time.time()), "tokens": 1234})
    subscription = get(client, secret, "subscription").json
    assert (subscription["hard_limit_usd"], subscription["access_until"], subscription["object"]) == (
        50,
        2_000_000_000,
        "billing_subscription",
    )
    assert get(client, secret, "usage").json["total_usage"] == pytest.approx(123.4)


def test_usage_of_an_earlier_period_is_not_counted(client: FlaskClient, redis: Redis):
    secret, key = ApiKeys(redis).create("k", quota_tokens=50_000, quota_reset="daily")
    redis.hset(keys.quota(key.id), mapping={"period": "2001-01-01", "tokens": 1234})
    assert get(client, secret, "usage").json["total_usage"] == 0


def test_key_without_a_quota_has_a_high_limit(client: FlaskClient, redis: Redis):
    secret, _ = ApiKeys(redis).create("k")
    assert get(client, secret, "subscription").json["hard_limit_usd"] == 100_000_000
    assert get(client, secret, "usage").json["total_usage"] == 0


def test_usage_between_two_dates_is_the_keys_own(client: FlaskClient, redis: Redis):
    secret, key = ApiKeys(redis).create("k")
    RequestLog(redis).write(
        [LogEntry("a", key.id, status=200, prompt_tokens=500), LogEntry("b", "other", prompt_tokens=7)]
    )
    UsageRollup(redis, 100, 7, 31).roll_up()
    today = time.strftime("%Y-%m-%d", time.gmtime())
    assert get(client, secret, f"usage?start_date={today}").json["total_usage"] == 50
    assert get(client, secret, f"usage?start_date=2001-01-01&end_date={today}").json["total_usage"] == 0


def test_invalid_date_and_unknown_key_are_refused(client: FlaskClient, redis: Redis):
    secret, _ = ApiKeys(redis).create("k")
    assert get(client, secret, "usage?start_date=soon").status_code == 400
    assert get(client, "sk-wrong", "subscription").status_code == 401


def test_usage_reads_a_day_that_is_over_once(client: FlaskClient, redis: Redis):
    secret, key = ApiKeys(redis).create("k")
    today = int(time.time()) // 86_400 * 86_400
    for days_ago in (0, 1, 2):
        fields = {
            f"k\x1f{metric}\x1f{owner}\x1fp\x1fm{model}": 10
            for metric in ("requests", "prompt_tokens", "completion_tokens", "estimated_tokens")
            for owner in (key.id, "other")
            for model in range(300)
        }
        redis.hset(keys.usage_day(today - days_ago * 86_400), mapping=fields)
    redis.set(keys.USAGE_ROLLED_UP, f"{1000 * (today + 1)}-0")
    path = f"usage?start_date={time.strftime('%Y-%m-%d', time.gmtime(today - 2 * 86_400))}"
    assert get(client, secret, path).json["total_usage"] == pytest.approx(3 * 600)
    assert {int(day) for day in redis.hkeys(keys.key_days(key.id))} == {today - 86_400, today - 2 * 86_400}
    redis.hset(keys.usage_day(today), f"k\x1fprompt_tokens\x1f{key.id}\x1fp\x1fm0", 20)
    time.sleep(1.1)
    scans = redis.info("commandstats")["cmdstat_hscan"]["calls"]
    assert get(client, secret, path).json["total_usage"] == pytest.approx(3 * 600 + 1)
    assert redis.info("commandstats")["cmdstat_hscan"]["calls"] - scans < 10


def test_usage_of_a_day_that_is_not_rolled_up_is_not_kept(client: FlaskClient, redis: Redis):
    secret, key = ApiKeys(redis).create("k")
    yesterday = (int(time.time()) // 86_400 - 1) * 86_400
    redis.hset(keys.usage_day(yesterday), f"k\x1fprompt_tokens\x1f{key.id}\x1fp\x1fm", 10)
    redis.set(keys.USAGE_ROLLED_UP, f"{1000 * (yesterday + 3600)}-0")
    path = f"usage?start_date={time.strftime('%Y-%m-%d', time.gmtime(yesterday))}"
    assert get(client, secret, path).json["total_usage"] == 1
    assert not redis.exists(keys.key_days(key.id))


def test_usage_counts_towards_the_requests_per_minute(client: FlaskClient, redis: Redis):
    secret, _ = ApiKeys(redis).create("k", rpm=2)
    responses = [get(client, secret, "usage") for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 429]
    assert responses[0].headers["x-ratelimit-remaining-requests"] == "1"
    assert responses[2].json["error"]["code"] == "rate_limit_exceeded"
