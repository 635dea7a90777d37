"""Operators are told what accounts' time went into, and whether requests ever met on one."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis

from shared import clock, keys
from shared.api_keys.admin_tokens import AdminTokens
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.observability.account_time.account_hours import AccountHours
from shared.observability.account_time.in_flight import InFlight
from shared.observability.counters import Counters
from shared.observability.samples import Totals

API = "/admin/api/v1"
Get = Callable[[str], dict[str, Any]]


@pytest.fixture
def get(redis: Redis, start_app: Callable[..., Flask]) -> Get:
    secret, _ = AdminTokens(redis).create("tests", "viewer")
    client: FlaskClient = start_app().test_client()

    def get(path: str) -> dict[str, Any]:
        response = client.get(API + path, headers={"authorization": f"Bearer {secret}"})
        assert response.status_code == 200, response.text
        return dict(response.json or {})

    return get


def add_sample(redis: Redis, seconds_ago: float, account_seconds: dict[str, float]) -> None:
    totals = Totals(account_seconds={"default": account_seconds}, now={"default": {}})
    at = int(clock.now() - seconds_ago) // 60 * 60
    redis.xadd(keys.samples(60), {"e": json.dumps(vars(totals))}, id=f"{at * 1000}-0")


def test_capacity_of_the_last_hour_is_told_by_what_it_went_into(redis: Redis, get: Get):
    add_sample(redis, 86_400, {"busy": 1000.0})
    add_sample(redis, 1800, {"busy": 1005.0})
    add_sample(redis, 900, {"busy": 1005.0, "idle_waiting": 2.0})
    add_sample(redis, 0, {"busy": 1095.0, "idle_waiting": 10.0})
    capacity = get("/capacity")
    assert capacity["seconds"] == pytest.approx(1800, abs=61)
    (pool,) = capacity["data"]
    assert pool["account_seconds"] == {"busy": 90.0, "idle_waiting": 10.0}
    assert (pool["pool"], pool["total"], pool["lost"], pool["lost_share"]) == ("default", 100.0, 10.0, 0.1)


def test_capacity_of_a_farm_that_has_just_started_is_unknown_not_zero(get: Get):
    capacity = get("/capacity")
    assert (capacity["seconds"], capacity["data"][0]["lost_share"]) == (0, None)
    assert capacity["collisions"] == {
        "peaks": [{"pool": "default", "most": 0, "allowed": 1}],
        "seen": 0,
        "turns_refused": 0,
    }


def test_collision_meter_has_its_three_figures(redis: Redis, get: Get):
    counters, in_flight = Counters(), InFlight()
    counters.increment("collisions")
    counters.increment("turns_refused", "begin", amount=2)
    counters.increment("turns_refused", "send")
    counters.flush(redis)
    in_flight.begin("default", "c1", 1)
    in_flight.flush(redis)
    meter = get("/capacity")["collisions"]
    assert meter == {"peaks": [{"pool": "default", "most": 2, "allowed": 1}], "seen": 1, "turns_refused": 3}


def test_hours_of_every_account(redis: Redis, unsealer: Unsealer, get: Get):
    ids = [Credentials(redis).add("default", f"token-{name}", name, "origin")[0] for name in ("lazy", "new")]
    hours = AccountHours(redis)
    hours.add(ids[0], "busy", 30.0)
    hours.add(ids[0], "idle", 10.0)
    hours.flush()
    listed = get("/account-hours")
    rows = {row["credential_name"]: row for row in listed["data"]}
    assert len(listed["hours"]) == 24
    assert rows["lazy"]["seconds"] == {"busy": 30.0, "idle": 10.0}
    assert (rows["lazy"]["busy_share"], rows["lazy"]["busy_shares"][-1]) == (0.75, 0.75)
    assert rows["new"]["busy_share"] is None
    assert rows["new"]["busy_shares"] == [None] * 24
