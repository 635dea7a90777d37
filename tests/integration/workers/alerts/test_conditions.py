"""Rules of alerts: what each finds, and what it leaves alone."""

from typing import Any

import pytest
from redis import Redis
from rq.job import Job

from shared import clock, keys
from shared.api_keys.api_key import ApiKey
from shared.api_keys.limits import quota_period
from shared.api_keys.store import ApiKeys
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.files.part_store import FileStoreDown, FileStoreFull
from shared.files.store_health import report_failure
from shared.protocol.relay_queue import ADMITTED_FIELD, RelayQueue
from shared.settings.alert_parsers import ALERT_RULES
from shared.settings.schema import PoolSettings, Settings
from tests.builders import build_request
from workers.alerts import conditions
from workers.alerts.conditions import Conditions


def find(redis: Redis, *rules: str, **settings: Any) -> list[str]:
    """Texts of what these rules find."""
    found = Conditions(redis, Settings(alert_rules=rules or tuple(ALERT_RULES), **settings)).find()
    return sorted(build().describe() for build in found.values())


@pytest.fixture
def account(redis: Redis, unsealer: Unsealer) -> str:
    return Credentials(redis).add("default", "a-token", "bob")[0]


def test_nothing_is_wrong_with_a_farm_that_has_an_account(redis: Redis, account: str):
    assert find(redis) == []


def test_dead_account_and_pool_without_accounts(redis: Redis, account: str):
    Credentials(redis).set_state("default", account, "dead", "invalid_grant: revoked")
    assert find(redis) == ["account bob is dead: invalid_grant: revoked", "no account is in service"]
    assert find(redis, "pool_without_accounts") == ["no account is in service"]
    Credentials(redis).set_state("default", account, "disabled", "by a person")
    assert find(redis) == ["no account is in service"]


def test_pool_whose_accounts_all_rest_has_none_only_if_that_lasts(redis: Redis, account: str):
    Credentials(redis).set_state("default", account, "cooling", "rate_limited", clock.now() + 5)
    assert find(redis) == []
    redis.hset(keys.credential(account), "until", clock.now() - 1)
    assert find(redis) == []  # It is about to come back.
    Credentials(redis).set_state("default", account, "cooling", "rate_limited", clock.now() + 500)
    assert find(redis) == ["no account is in service: all that are usable rest"]


def test_pool_for_private_credentials_needs_no_accounts(redis: Redis):
    assert find(redis, pools=(PoolSettings(private_credentials=True),)) == []
    assert find(redis) == ["no account is in service"]


def test_upstream_and_token_endpoint_that_are_down(redis: Redis, account: str):
    redis.hset(keys.breaker("default"), "reason", "timeout")
    redis.hset(keys.token_breaker("default"), "reason", "http_500")
    assert find(redis, "upstream_down") == [
        "the token endpoint fails for several accounts (http_500)",
        "the upstream is down (timeout): requests wait",
    ]
    redis.hset(keys.token_breaker("default"), "reason", "api_key_refused")
    assert "the upstream refuses several API keys and accepts none" in find(redis, "upstream_down")


@pytest.mark.parametrize(
    ("error", "what"), [(FileStoreFull("full"), "is full"), (FileStoreDown("away"), "can't be used")]
)
def test_files_that_can_not_be_stored(redis: Redis, account: str, error: FileStoreDown, what: str):
    report_failure(redis, error)
    assert find(redis) == [f"the store of files {what}: uploads are refused, and batches wait with their results"]


def test_request_that_has_waited_for_long(redis: Redis, account: str):
    queue = RelayQueue(redis, 100)
    for number, band in enumerate(("interactive", "batch", "interactive")):
        queue.enqueue(build_request(f"req_{number}", key=f"k{number}", band=band), b"{}")
    assert find(redis, "queue_wait", alert_queue_wait=30.0) == []
    redis.hset(Job.key_for("req_1"), ADMITTED_FIELD, clock.now() - 31)
    assert find(redis, "queue_wait", alert_queue_wait=30.0) == []  # Batch requests wait for a lull.
    redis.hset(Job.key_for("req_2"), ADMITTED_FIELD, clock.now() - 31)
    assert find(redis, "queue_wait", alert_queue_wait=30.0) == ["a request has waited for more than 30 s"]


def test_retry_that_has_waited_for_long(redis: Redis, account: str):
    redis.zadd(keys.waiting_retries("default"), {"req_1": clock.now() - 61})
    assert find(redis, "queue_wait") == ["a request has waited for more than 60 s"]


def test_quota_that_is_used_up(redis: Redis):
    store = ApiKeys(redis)
    _, daily = store.create("laptop", quota_tokens=1000, quota_reset="daily")
    _, total = store.create("phone", quota_requests=10)
    _, disabled = store.create("old", quota_requests=10)
    store.update(disabled.id, {"enabled": False}, disabled.version)
    store.create("free")

    def use(key: ApiKey, period: str = "", **used: int) -> None:
        redis.hset(keys.quota(key.id), mapping={"period": period or quota_period(key, clock.now()), **used})

    for key in (daily, total, disabled):
        use(key, tokens=799, requests=0)
    assert find(redis, "quota") == []
    use(daily, tokens=800)
    use(total, requests=10)
    use(disabled, requests=10)
    assert find(redis, "quota") == [
        "API key laptop has used 80 % of its quota; it is reset daily",
        "API key phone has used 100 % of its quota",
        "API key phone has used 80 % of its quota",
    ]
    use(daily, "2020-01-01", tokens=1000)
    assert not [text for text in find(redis, "quota") if "laptop" in text]


def test_account_without_a_name_goes_by_its_id(redis: Redis, unsealer: Unsealer):
    nameless, _ = Credentials(redis).add("default", "a-token")
    Credentials(redis).set_state("default", nameless, "dead", "invalid_grant")
    assert find(redis, "account_dead") == [f"account {nameless} is dead: invalid_grant"]


def test_what_takes_long_to_read_is_read_now_and_then(redis: Redis, account: str, monkeypatch: pytest.MonkeyPatch):
    watching = Conditions(redis, Settings())
    assert watching.find() == {}
    redis.hset(keys.credential(account), "in_doubt_since", clock.now())
    monkeypatch.setattr(conditions, "SLOW_INTERVAL_SECONDS", 1e6)
    assert watching.find() == {}
    monkeypatch.setattr(conditions, "SLOW_INTERVAL_SECONDS", 0.0)
    assert len(watching.find()) == 1


def test_rotation_in_doubt(redis: Redis, account: str):
    redis.hset(keys.credential(account), "in_doubt_since", clock.now())
    assert find(redis) == ["the token of account bob may have been rotated: a refresh got no answer"]


def test_redis_that_is_not_on_disk(redis: Redis, account: str):
    redis.config_set("appendonly", "no")
    try:
        (text,) = find(redis)
    finally:
        redis.config_set("appendonly", "yes")
    assert text.startswith("Redis has no append-only file")


def test_rule_that_is_not_configured_finds_nothing(redis: Redis):
    assert find(redis, "quota") == []
