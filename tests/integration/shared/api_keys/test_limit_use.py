"""Operators see what a key uses of its limits, as the scripts that keep them count it."""

import time
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from redis import Redis

from shared.api_keys.limit_use import KeyUse, find_reset, read_key_use, read_quota_shares
from shared.api_keys.limits import encode_demand
from shared.protocol.relay_queue import RelayQueue
from tests.builders import build_key, build_request


def enqueue(redis: Redis, request_id: str, tokens: int, **limits: object) -> KeyUse:
    key = build_key(**limits)
    demand = encode_demand(key, tokens, time.time())
    RelayQueue(redis, 100).enqueue(build_request(request_id, key=key.id), b"{}", demand)
    return read_key_use(redis, key)


def test_key_without_limits_uses_none(redis: Redis):
    assert read_key_use(redis, build_key()) == KeyUse((), 0)


def test_requests_and_tokens_of_the_last_minute_and_the_quota_are_counted(redis: Redis):
    limits = {"rpm": 5, "tpm": 1000, "quota_tokens": 400, "quota_requests": 10, "quota_reset": "daily"}
    for number in range(2):
        use = enqueue(redis, f"req_{number}", 100, **limits)
    found = {limit.name: (limit.used, limit.limit, limit.reserved) for limit in use.limits}
    assert found == {
        "rpm": (2, 5, 0),
        "tpm": (200, 1000, 0),
        "quota_tokens": (0, 400, 200),
        "quota_requests": (2, 10, 0),
    }
    assert all(limit.resets_at > time.time() for limit in use.limits if limit.name.startswith("quota"))
    assert read_quota_shares(redis, [build_key(**limits), build_key()]) == {"k1": 0.2}


def test_requests_beyond_a_limit_are_held(redis: Redis):
    for number in range(3):
        use = enqueue(redis, f"req_{number}", 1, rpm=2, max_waiting=5)
    assert (use.limits[0].used, use.held) == (2, 1)


def test_quota_of_another_period_is_unused(redis: Redis):
    enqueue(redis, "req_1", 1, quota_requests=10, quota_reset="never")
    key = build_key(quota_requests=10, quota_reset="monthly")
    assert [limit.used for limit in read_key_use(redis, key).limits] == [0]


@pytest.mark.parametrize(
    ("reset", "at", "expected"),
    [
        ("daily", "2026-03-28T12:00", "2026-03-29T00:00"),
        ("daily", "2026-03-29T12:00", "2026-03-30T00:00"),
        ("weekly", "2026-11-28T23:59", "2026-11-30T00:00"),
        ("weekly", "2026-11-30T00:00", "2026-12-07T00:00"),
        ("monthly", "2026-01-31T10:00", "2026-02-01T00:00"),
        ("monthly", "2026-12-05T10:00", "2027-01-01T00:00"),
    ],
)
def test_next_period_begins_in_the_zone_of_the_key(reset: str, at: str, expected: str):
    zone = ZoneInfo("Europe/Berlin")
    key = build_key(quota_reset=reset, quota_zone="Europe/Berlin")
    now, then = (datetime.fromisoformat(text).replace(tzinfo=zone).timestamp() for text in (at, expected))
    assert find_reset(key, now) == then


def test_quota_for_good_never_begins_anew():
    assert find_reset(build_key(quota_requests=1), time.time()) == 0
