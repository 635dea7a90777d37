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
