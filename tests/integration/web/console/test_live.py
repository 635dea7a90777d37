"""A live page gets what has changed over one stream, which ends with its session."""

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import gevent
import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from werkzeug.test import TestResponse

from shared import keys
from shared.api_keys.admin_sessions import AdminSessions
from shared.api_keys.admin_tokens import AdminTokens
from shared.batches.batch_store import Batches
from shared.credentials.store import Credentials
from shared.protocol.relay_queue import queue_keys
from shared.protocol.sse import KEEP_ALIVE_COMMENT, encode_event
from tests.console_batches import add_batch
from tests.integration.web.console.conftest import LogIn
from tests.integration.workers.jobs.simulated_pool import SimulatedPool
from tests.waiting import eventually
from web import live_feed
from web.console.live import stream
from web.console.live.fragments import LIVE_PAGES, SETTLED, Topic, render_topics
from web.services import EXTENSION

HTMX = {"accept": "text/html, text/event-stream", "hx-request": "true"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_feed, "TICK_SECONDS", 0.02)
    monkeypatch.setattr(live_feed, "MAX_CPU_SHARE", 100.0)


def open_stream(browser: FlaskClient, page: str = "overview", **query: str) -> TestResponse:
    response = browser.get("/admin/live", query_string={"page": page, **query}, headers=HTMX, buffered=False)
    assert response.content_type == "text/event-stream"
    return response


def read_events(response: TestResponse) -> Iterator[str]:
    """Without the comments that keep proxies awake, should the machine be slow."""
    for piece in response.iter_encoded():
        if piece != KEEP_ALIVE_COMMENT:
            yield piece.decode()


def test_figure_changes_in_the_stream_of_a_page(admin: FlaskClient, redis: Redis, ids: list[str]):
    with closing(open_stream(admin)) as response:
        events = read_events(response)
        assert " / 24</small>" in next(events)
        Credentials(redis).add("default", "another-refresh-token", "", "https://tokens.example")
        eventually(lambda: " / 25</small>" in next(events))


def test_every_page_with_a_live_part_renders_it_alike_alone_and_in_the_page(admin: FlaskClient, ids: list[str]):
    for page, path in (("overview", "/admin/"), ("queue", "/admin/queue")):
        assert f'hx-sse:connect="/admin/live?page={page}&amp;every=1&amp;lang=en"' in admin.get(path).text
        with closing(open_stream(admin, page)) as response:
            lines = [line.removeprefix("data: ") for line in next(read_events(response)).splitlines()]
            headings = [line for line in lines if line.startswith(("<h2", "<h3"))]
            assert headings
            assert all(heading in admin.get(path).text for heading in headings)


def test_stream_is_in_the_language_of_its_page_and_leaves_the_choice_alone(admin: FlaskClient, ids: list[str]):
    with closing(open_stream(admin, lang="zh", every="5")) as response:
        assert "账号" in next(read_events(response))
        assert "set-cookie" not in response.headers
    assert 'lang="en"' in admin.get("/admin/").text


def test_interval_is_kept_and_can_be_off(admin: FlaskClient, ids: list[str]):
    assert "every=5&amp;lang" in admin.get("/admin/queue?every=5").text
    assert "every=5&amp;lang" in admin.get("/admin/").text
    admin.set_cookie("farm_every", "17", path="/admin")
    assert "every=1&amp;lang" in admin.get("/admin/").text
    assert "hx-sse" not in admin.get("/admin/?every=0").text
    assert "hx-sse" not in admin.get("/admin/queue").text


@pytest.mark.parametrize("end", ["log out", "end the session", "revoke the token", "let it run out"])
def test_stream_ends_with_its_session(admin: FlaskClient, app: Flask, redis: Redis, ids: list[str], end: str):
    with closing(open_stream(admin)) as response:
        events = read_events(response)
        next(events)
        if end == "log out":
            assert admin.post("/admin/logout").status_code == 302
        elif end == "end the session":
            AdminSessions(redis).end_all()
        elif end == "revoke the token":
            AdminTokens(redis).create("another", "admin")
            AdminTokens(redis).revoke(next(each.id for each in AdminTokens(redis).list() if each.name == "the admin"))
        else:
            redis.delete(*redis.keys("farm:admin-session:*"))
        *_, last = events
        assert last == "event: logged-out\ndata: session\n\n"
    assert open_stream(admin).text == last
    assert len(app.extensions[EXTENSION].live_feed) == 0


def test_watching_does_not_extend_the_session(admin: FlaskClient, redis: Redis, ids: list[str]):
    (key,) = redis.keys("farm:admin-session:*")
    redis.zadd("farm:admin-sessions", dict.fromkeys(redis.zrange("farm:admin-sessions", 0, -1), 1))
    redis.expire(key, 1000)
    with closing(open_stream(admin)) as response:
        next(read_events(response))
    assert redis.ttl(key) <= 1000
    assert admin.get("/admin/queue").status_code == 200
    assert redis.ttl(key) > 3000


def test_viewer_gets_no_buttons(log_in: LogIn, ids: list[str], redis: Redis):
    SimulatedPool(redis).enqueue("somebody", model="gpt-large")
    for role, has_buttons in (("admin", True), ("viewer", False)):
        with closing(open_stream(log_in(role), "queue")) as response:
            event = next(read_events(response))
            assert "gpt-large" in event
            assert ("<button" in event) == has_buttons


def test_queue_tells_who_waits_in_the_band_of_the_request(admin: FlaskClient, redis: Redis):
    """A job that RQ itself has enqueued has no time of admission."""
    assert admin.get("/admin/queue?lang=en").text.count("nobody has to wait") == 2
    pool = SimulatedPool(redis)
    redis.hset(keys.credentials("default"), mapping={"c1": "active", "c2": "active"})
    pool.enqueue("somebody")
    worker = pool.worker()
    worker.start()
    worker.requeue()
    page = admin.get("/admin/queue?lang=en").text
    assert re.search(r"interactive</span><b[^>]*>1</b>\s*<span>the oldest for", page)
    assert re.search(r"batch</span><b[^>]*>0</b>\s*<span>nobody has to wait", page)
    pool.queue.withdraw("default", "req_somebody_1")
    redis.rpush(queue_keys("default")[0], "a-job")
    page = admin.get("/admin/queue?lang=en").text
    assert re.search(r"interactive</span><b[^>]*>1</b>\s*<span>not known yet", page)


def test_further_streams_poll(admin: FlaskClient, app: Flask, ids: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live_feed, "MAX_VIEWERS", 1)
    with closing(open_stream(admin)) as response:
        events = read_events(response)
        next(events)
        (only,) = read_events(open_stream(admin))
        assert only.startswith("retry: 5000\ndata: ")
        assert next(events).startswith("data: "), "the first one goes on"


def test_stream_ends_when_its_front_retires(admin: FlaskClient, app: Flask, ids: list[str]):
    with closing(open_stream(admin, every="5")) as response:
        events = read_events(response)
        next(events)
        gevent.spawn(app.extensions[EXTENSION].end_live_pages)
        assert all(piece.startswith(b"data: ") for piece in response.iter_encoded())


def test_stream_ends_while_redis_is_away(admin: FlaskClient, ids: list[str], monkeypatch: pytest.MonkeyPatch):
    def ask_redis() -> bool:
        raise RedisConnectionError("Redis is away")

    monkeypatch.setattr(stream, "build_admission_check", lambda: ask_redis)
    with closing(open_stream(admin)) as response:
        assert list(read_events(response)) == []


def test_page_is_read_once_for_all_languages_and_its_events_come_first(
    app: Flask, ids: list[str], monkeypatch: pytest.MonkeyPatch
):
    queue, reads = LIVE_PAGES["queue"], list[None]()

    def read(subject: str) -> dict[str, object]:
        reads.append(None)
        return queue.read(subject)

    monkeypatch.setitem(LIVE_PAGES, "queue", replace(queue, read=read))
    messages = render_topics(app, [Topic("queue", language, "admin") for language in ("en", "zh")])
    assert (len(messages), len(reads)) == (2, 1)
    assert all(message.startswith(b"event: ") and b"\n\ndata: " in message for message in messages.values())


def test_page_of_one_batch_follows_it_and_settles_when_it_ends(admin: FlaskClient, redis: Redis):
    batch = add_batch(redis, "k", "in_progress")
    path = f"/admin/batches/{batch.id}"
    assert f'page=batch&amp;subject={batch.id}&amp;every=1&amp;lang=en"' in admin.get(path).text
    with closing(open_stream(admin, "batch", subject=batch.id)) as response:
        events = read_events(response)
        first = next(events)
        assert "25 of 40 completed" in first and "Cancel the batch" in first and "settled" not in first
        redis.hincrby(keys.batch(batch.id), "completed", 1)
        eventually(lambda: "26 of 40 completed" in next(events))
        changes = {"status": "completed", "completed_at": 5, "output_parts": [7]}
        Batches(redis).change(batch, ("in_progress",), changes, ends=True)
        (last,) = eventually(lambda: [event for event in (next(events),) if "settled" in event])
        assert next(events, "") == "", "the stream ends"
    assert "Cancel the batch" not in last and "Remove the record" in last and batch.output_file in last
    assert last.endswith("\n\nevent: settled\ndata: page\n\n")
    assert "hx-sse" not in admin.get(path).text and "live-controls" not in admin.get(path).text


def test_pages_of_two_batches_are_not_mixed_up_and_one_may_be_gone(app: Flask, redis: Redis):
    batches = [add_batch(redis, "k", "in_progress") for _ in range(2)]
    topics = [Topic("batch", "en", "admin", batch.id) for batch in batches]
    gone = Topic("batch", "en", "admin", "batch_none")
    messages = render_topics(app, [*topics, gone])
    for batch, other, topic in zip(batches, reversed(batches), topics, strict=True):
        assert batch.id.encode() in messages[topic] and other.id.encode() not in messages[topic]
    assert b"was removed" in messages[gone] and messages[gone].endswith(SETTLED)


def test_unknown_page_has_no_stream(admin: FlaskClient):
    assert admin.get("/admin/live?page=accounts").status_code == 404
    assert admin.get("/admin/live?page=batch&subject=batch_1:done").status_code == 404


def test_text_with_line_breaks_makes_no_event_of_its_own():
    encoded = encode_event("a\r\revent: logged-out\n\ndata: x\r\nid: 1")
    assert encoded == "data: a\ndata: event: logged-out\ndata: data: x\ndata: id: 1\n\n"
