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
    return [" ".join(re.sub(r"<[^>]+>", " ", f"<tr{row}").split()) for row in body.split("<tr")[1:]]


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


def test_breaker_is_replayed_from_its_faults_to_its_close(admin: FlaskClient, redis: Redis, ids: list[str], now: float):
    faults = [
        {"t": now - 110 + number, "credential_id": ids[number], "request_id": f"req_{number}", "reason": "unreachable"}
        for number in (1, 2, 3)
    ]
    id_ = record(redis, "breaker_opened", now - 100, pool="default", reason="unreachable", faults=faults)
    probe = {"credential_id": ids[4], "request_id": "req_9", "reason": "first_byte_timeout"}
    record(redis, "breaker_probed", now - 98, pool="default", **probe)
    record(redis, "credential_cooling", now - 97, pool="default", credential_id=ids[5])
    record(redis, "breaker_probed", now - 96, pool="other", reason="of another pool")
    record(redis, "breaker_closed", now - 90, pool="default")
    record(redis, "breaker_probed", now - 80, pool="default", reason="of a later outage")
    assert f"/admin/events/{id_}" in admin.get("/admin/events").text
    page = admin.get(f"/admin/events/{id_}").text
    shown = rows(page)
    assert [row.split()[0] for row in shown] == ["+0.0", "+1.0", "+2.0"]
    assert "translator 2" in shown[1] and "req_2" in shown[1] and "unreachable" in shown[1]
    assert "+11.0 s" in page and "req_9" in page and "first_byte_timeout" in page
    assert "of another pool" not in page and "of a later outage" not in page
    assert "after 10 s" in page and "One account cooled" in page
    incident = admin.get(f"/admin/api/v1/events/{id_}/incident").json
    assert incident is not None and incident["closed"]["time"] == now - 90
    assert [fault["credential"] for fault in incident["opened"]["faults"]] == ids[1:4]
    assert incident["meanwhile"] == {"credential_cooling": 1}


def test_breaker_that_is_open_is_replayed_too_and_other_events_are_not(admin: FlaskClient, redis: Redis, now: float):
    opened = record(redis, "token_breaker_opened", now - 100, pool="default", reason="http_500", message="fails")
    assert "not yet" in admin.get(f"/admin/events/{opened}").text
    other = record(redis, "process_started", now)
    for path in (other, "1-1", "nonsense"):
        assert admin.get(f"/admin/events/{path}").status_code == 404


def test_overview_and_an_accounts_page_show_their_events(admin: FlaskClient, redis: Redis, ids: list[str], now: float):
    record(redis, "credential_cooling", now - 20, pool="default", credential_id=ids[5], reason="of-this-one")
    record(redis, "credential_cooling", now - 10, pool="default", credential_id=ids[6], reason="of-another")
    faults = [{"t": now, "credential_id": ids[5], "request_id": "req_1", "reason": "timeout"}]
    record(redis, "breaker_opened", now, pool="default", reason="opened-by-it", faults=faults)
    overview, account = admin.get("/admin/").text, admin.get(f"/admin/accounts/{ids[5]}").text
    assert "of-this-one" in overview and "of-another" in overview
    assert "of-this-one" in account and "opened-by-it" in account and "of-another" not in account


def test_texts_of_others_are_escaped(admin: FlaskClient, redis: Redis, ids: list[str], now: float):
    record(redis, "operator", now, reason="key.create", who=f"token {HOSTILE}", target=HOSTILE)
    record(redis, "breaker_opened", now, pool=HOSTILE, reason=HOSTILE, evidence=HOSTILE, message=HOSTILE)
    record(redis, "credential_dead", now, pool="default", credential_id=ids[0], reason=HOSTILE)
    faults = [{"t": now, "credential_id": HOSTILE, "request_id": HOSTILE, "reason": HOSTILE}, "nonsense"]
    opened = record(redis, "breaker_opened", now, pool=HOSTILE, reason="again", faults=faults)
    replay = admin.get(f"/admin/events/{opened}").text
    assert "<script>alert" not in replay and "<img src=x" not in replay
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
