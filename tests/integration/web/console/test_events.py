"""The time line on the console: rows for several events at once, filters, links to a moment, names, escaped texts."""

import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from shared import clock, keys
from shared.observability.event_log import EVENTS, encode_event
from tests.console_content import HOSTILE
from web.console.timeline import wording


def record(redis: Redis, kind: str, at: float, **fields: Any) -> str:
    """Writes an event of `at`; returns its id."""
    encoded = encode_event(kind, **fields).replace('{"t": ', '{"u": ', 1).replace("{", f'{{"t": {at}, ', 1)
    return str(redis.xadd(keys.EVENTS, {"e": encoded}, id=f"{int(at * 1000)}-*").decode())


def rows(page: str) -> list[str]:
    """The rows of the time line, as text."""
    body = page.partition("<tbody>")[2].partition("</tbody>")[0]
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in body.split("<tr")[1:]]


@pytest.fixture
def now(redis: Redis, ids: list[str]) -> float:
    """The time, to the second; the time line is empty."""
    redis.delete(keys.EVENTS)
    return float(int(clock.now()))


def test_accounts_that_cool_together_are_one_row_that_opens(
    admin: FlaskClient, redis: Redis, ids: list[str], now: float
):
    for number, id_ in enumerate(ids[:14]):
        fields = {"pool": "default", "credential_id": id_, "reason": "rate_limited"}
        record(redis, "credential_cooling", now - 100 + number * 0.2, **fields)
    record(redis, "breaker_opened", now - 50, pool="default", reason="timeout", message="the upstream is down")
    page = admin.get("/admin/events").text
    first, second = rows(page)[:2]
    assert "Upstream down: breaker opened" in first and "timeout" in first
    assert "14 accounts cooled within 3 s" in second
    assert "translator 5" in second and page.count("/admin/accounts/") >= 14


def test_time_line_is_filtered_by_kind_pool_account_and_time(
    admin: FlaskClient, redis: Redis, ids: list[str], now: float
):
    record(redis, "credential_dead", now - 90_000, pool="a", credential_id=ids[1], reason="old")
    record(redis, "credential_dead", now - 300, pool="a", credential_id=ids[1], reason="first")
    record(redis, "breaker_closed", now - 200, pool="b", reason="second")
    record(redis, "credential_cooling", now - 100, pool="b", credential_id=ids[2], reason="third")

    def shown(query: str) -> list[str]:
        found = admin.get(f"/admin/events?{query}").text
        return re.findall(r"\b(?:old|first|second|third)\b", " ".join(rows(found))) if "<tbody>" in found else []

    assert shown("") == ["third", "second", "first", "old"]
    assert shown("kind=credential_dead") == ["first", "old"]
    assert shown("pool=b") == ["third", "second"]
    assert shown(f"credential={ids[1]}&reach=24h") == ["first"]
    assert shown(f"around={int(now) - 300}") == ["third", "second", "first"]
    assert shown(f"around={int(now) - 300}&kind=breaker_closed") == ["second"]
    assert shown("kind=nosuch") == ["third", "second", "first", "old"]
    assert shown("pool=nosuch") == []


def test_link_to_a_moment_leads_to_the_event(admin: FlaskClient, redis: Redis, now: float):
    id_ = record(redis, "process_buried", now - 5000, worker_process="host-1-ab", message="a worker process died")
    link = re.search(rf'href="(/admin/events\?around=(\d+))#e{id_}"', admin.get("/admin/events").text)
    assert link is not None and int(link[2]) == now - 5000
    assert f'id="e{id_}"' in admin.get(link[1]).text


def test_texts_of_others_are_escaped(admin: FlaskClient, redis: Redis, ids: list[str], now: float):
    record(redis, "operator", now, reason="key.create", who=f"token {HOSTILE}", target=HOSTILE)
    record(redis, "breaker_opened", now, pool=HOSTILE, reason=HOSTILE, evidence=HOSTILE, message=HOSTILE)
    record(redis, "credential_dead", now, pool="default", credential_id=ids[0], reason=HOSTILE)
    record(redis, f"new_kind {HOSTILE}", now)
    page = admin.get("/admin/events").text
    assert "<script>alert" not in page and "<img src=x" not in page


def test_api_has_names_beside_ids(admin: FlaskClient, redis: Redis, ids: list[str], now: float):
    record(redis, "credential_dead", now, pool="default", credential_id=ids[3])
    event = admin.get("/admin/api/v1/events?kind=credential_dead").json["data"][0]  # type: ignore[index]
    assert (event["credential"], event["credential_name"]) == (ids[3], "translator 3")


def test_every_kind_has_its_words():
    assert set(wording.EVENT_KINDS) == set(EVENTS)
    assert set(wording.EVENT_COLOURS) <= set(EVENTS)
