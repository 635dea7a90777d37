"""Alerts, from what is wrong to what a real receiver gets: who sends them, how often, and what a failure means."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from redis import Redis

from shared import clock, keys
from shared.alerts.notices import Alert, Notice
from shared.alerts.orders import Order, Outcome
from shared.alerts.receivers import HOUR_SECONDS, Receiver, identify
from shared.alerts.store import KEPT_SECONDS, NOTICE_TTL_SECONDS, find_last_notice, read_notices, read_status
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.observability.counters import Counters
from shared.redis_connection.client import register_script
from shared.settings.schema import Settings
from tests import internals
from tests.environment import free_port
from tests.integration.workers.alerts.receiver import Receiver as Service
from tests.integration.workers.alerts.receiver import run_mail_server, run_receiver
from tests.waiting import eventually
from workers.alerts import watch
from workers.alerts.messengers import run_order
from workers.alerts.watch import AlertWatch

StartWatch = Callable[..., AlertWatch]


@pytest.fixture(autouse=True)
def immediate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for others, and what is right again is over at once."""
    monkeypatch.setattr(watch, "CALM_SECONDS", 0.0)
    monkeypatch.setattr(watch, "GROUP_SECONDS", 0.0)


@pytest.fixture
def service() -> Iterator[Service]:
    with run_receiver() as service:
        yield service


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def start_watch(redis: Redis, redis_url: str, counters: Counters) -> Iterator[StartWatch]:
    started = []

    def start(*urls: str, process: str = "p1", checks_urls: bool = False, **settings: Any) -> AlertWatch:
        rules = ("account_dead", "upstream_down")
        values = {"redis_url": redis_url, "alert_urls": urls, "alert_rules": rules, **settings}
        started.append(AlertWatch(redis, Settings(**values), process, counters, checks_urls=checks_urls))
        started[-1].look()
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def account(redis: Redis, unsealer: Unsealer) -> str:
    credential_id, _ = Credentials(redis).add("default", "a-token", "bob")
    return credential_id


def kill_account(redis: Redis, credential_id: str) -> None:
    Credentials(redis).set_state("default", credential_id, "dead", "invalid_grant")


def open_breaker(redis: Redis, pool: str = "default") -> None:
    redis.hset(keys.breaker(pool), "reason", "timeout")


def read_receiver(redis: Redis, url: str) -> Receiver:
    return read_status(redis).receivers[identify(url)]


def store_receiver(redis: Redis, url: str, **values: Any) -> None:
    record = Receiver("json://…", **{"cursor": "0-0", **values})
    redis.hset(keys.ALERT_RECEIVERS, identify(url), record.encode())


def tell(redis: Redis, url: str, *watches: AlertWatch) -> None:
    """Looks until the receiver has been told of everything."""

    def look() -> bool:
        for each in watches:
            each.look()
        return True

    def is_told() -> bool:
        return read_receiver(redis, url).cursor == find_last_notice(redis)

    eventually(lambda: not any(map(internals.has_messengers, watches)) and look() and is_told())


def kill_senders() -> None:
    for process in psutil.Process().children():
        if "workers.alerts" in process.cmdline():
            process.kill()


def test_alert_is_told_once_and_again_when_it_is_over(
    redis: Redis, service: Service, start_watch: StartWatch, account: str, counters: Counters
):
    """Also when two processes watch, and both look again and again."""
    watches = [start_watch(service.url, process=process) for process in ("p1", "p2")]
    kill_account(redis, account)
    tell(redis, service.url, *watches)
    assert service.titles == ["default: account bob is dead: invalid_grant"]
    assert service.messages[0]["type"] == "failure"
    Credentials(redis).enable("default", account)
    tell(redis, service.url, *watches)
    assert service.titles[1:] == ["default: account bob was dead"]
    assert "over after" in service.messages[1]["message"] and service.messages[1]["type"] == "success"
    assert redis.xlen(keys.ALERT_NOTICES) == 2
    assert counters.value("alert_messages", "json", "sent") == 2


def test_slow_receiver_holds_up_no_other_and_is_told_once_though_the_watching_process_is_killed(
    redis: Redis, service: Service, start_watch: StartWatch, account: str
):
    with run_receiver() as slow:
        slow.answers.clear()
        killed = start_watch(slow.url, service.url, process="killed")
        kill_account(redis, account)
        eventually(lambda: killed.look() or (len(slow.messages) == 1 and len(service.messages) == 1))
        # Of a process that is killed its lease runs out; the message is on its way all the same.
        redis.delete(keys.ALERT_LEASE)
        successor = start_watch(slow.url, service.url, process="successor")
        tell(redis, service.url, successor)
        open_breaker(redis)
        tell(redis, service.url, successor)
        slow.answers.set()
        tell(redis, slow.url, successor)
    assert [title.split()[1] for title in slow.titles] == ["account", "the"]
    assert slow.titles == service.titles


def test_killed_sender_is_replaced_and_nothing_is_lost(
    redis: Redis, service: Service, start_watch: StartWatch, account: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("shared.alerts.receivers.RETRY_SECONDS", 0.0)
    service.answers.clear()
    watching = start_watch(service.url)
    kill_account(redis, account)
    eventually(lambda: watching.look() or service.messages)
    kill_senders()
    service.answers.set()
    tell(redis, service.url, watching)
    assert service.titles == ["default: account bob is dead: invalid_grant"] * 2  # The first one had no answer.


def test_messages_beyond_the_hourly_limit_wait_and_come_together(
    redis: Redis, service: Service, start_watch: StartWatch, account: str
):
    watching = start_watch(service.url, alert_hourly_limit=1, alert_language="zh")
    store_receiver(redis, service.url, sent=[clock.now() - 10])
    kill_account(redis, account)
    watching.look()
    open_breaker(redis)
    watching.look()
    assert not internals.has_messengers(watching)
    assert read_status(redis).waiting == {identify(service.url): 2}
    store_receiver(redis, service.url, sent=[clock.now() - HOUR_SECONDS - 1])
    tell(redis, service.url, watching)
    assert service.titles == ["2 条新告警"]
    assert all(text in service.messages[0]["message"] for text in ("账号 bob 已失效：invalid_grant", "上游不可用"))


def test_failed_delivery_shows_no_secret_and_is_tried_again_later(
    redis: Redis, start_watch: StartWatch, account: str, caplog: pytest.LogCaptureFixture, counters: Counters
):
    url = f"json://operator:hunter2hunter2@127.0.0.1:{free_port()}/hook-secret?token=query-secret"
    watching = start_watch(url)
    kill_account(redis, account)
    with caplog.at_level(logging.INFO, "farm.alerts"):
        eventually(lambda: watching.look() or read_receiver(redis, url).error)
        eventually(lambda: not internals.has_messengers(watching))
    receiver = read_receiver(redis, url)
    assert (receiver.failures, receiver.cursor) == (1, "0-0") and receiver.retry_at > clock.now()
    assert [counters.value("alert_messages", "json", outcome) for outcome in ("failed", "sent")] == [1, 0]
    watching.look()
    assert not internals.has_messengers(watching)
    stored = b"".join(redis.dump(key) or b"" for key in redis.keys("farm:alerts*"))
    shown = f"{stored!r} {caplog.text} {read_status(redis)}"
    assert "can't be told" in shown
    assert not [secret for secret in ("hunter2", "hook-secret", "query-secret", "operator") if secret in shown]


def test_new_receiver_is_told_of_what_happens_from_now_on(
    redis: Redis, start_watch: StartWatch, account: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watch, "GROUP_SECONDS", 1e6)  # No message goes out.
    first = start_watch("json://first.example", "json://both.example")
    kill_account(redis, account)
    first.look()
    first.stop()
    second = start_watch("json://both.example", "json://second.example")
    open_breaker(redis)
    second.look()
    assert read_status(redis).waiting == {identify("json://both.example"): 2, identify("json://second.example"): 1}


def test_what_must_last_is_told_when_it_has_lasted_while_the_process_watches(
    redis: Redis, start_watch: StartWatch, monkeypatch: pytest.MonkeyPatch
):
    """And not of what it saw before another process watched for a while."""
    now = [0.0]
    monkeypatch.setattr(watch, "GROUP_SECONDS", 1e6)  # No message goes out.
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: now[0]))
    watching = start_watch("json://one.example", alert_rules=("pool_without_accounts",))
    patience = watch.PATIENCE_SECONDS["pool_without_accounts"]
    now[0] = patience - 1
    redis.set(keys.ALERT_LEASE, "another")
    watching.look()
    redis.delete(keys.ALERT_LEASE)
    for now[0], is_raised in ((patience, False), (2 * patience - 1, False), (2 * patience, True)):
        watching.look()
        assert bool(read_status(redis).alerts) == is_raised


def test_what_comes_and_goes_is_one_alert(
    redis: Redis, start_watch: StartWatch, account: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watch, "CALM_SECONDS", 1e6)
    monkeypatch.setattr(watch, "GROUP_SECONDS", 1e6)  # No message goes out.
    watching = start_watch("json://one.example")
    for _ in range(2):
        kill_account(redis, account)
        watching.look()
        Credentials(redis).enable("default", account)
        watching.look()
    assert len(read_status(redis).alerts) == redis.xlen(keys.ALERT_NOTICES) == 1


def test_alert_that_is_raised_already_adds_no_notice_and_notices_are_bounded(redis: Redis):
    """Redis drops whole blocks, of a hundred notices."""
    redis.set(keys.ALERT_LEASE, "p1")
    change = register_script(redis, Path(watch.__file__).with_name("change_alert.lua"))
    names = [keys.ALERT_LEASE, keys.ALERTS, keys.ALERT_NOTICES]
    assert [change(keys=names, args=["p1", "a", record, "notice", 10]) for record in ("x", "x", "", "")] == [1, 0, 1, 0]
    assert redis.xlen(keys.ALERT_NOTICES) == 2
    for number in range(300):
        change(keys=names, args=["p1", f"a{number}", "x", "notice", 10])
    assert 10 <= redis.xlen(keys.ALERT_NOTICES) < 200


def test_delivery_is_left_to_the_process_that_holds_it(
    redis: Redis, redis_url: str, start_watch: StartWatch, account: str
):
    url = f"json://127.0.0.1:{free_port()}"
    watching = start_watch(url)
    redis.set(keys.alert_delivery(identify(url)), "another")
    kill_account(redis, account)
    for _ in range(2):
        watching.look()
        assert not internals.has_messengers(watching)
    order = Order(redis_url, url, identify(url), "farm", "")
    assert run_order(order) == Outcome()
    assert read_receiver(redis, url).failures == 0
    redis.delete(keys.alert_delivery(identify(url)))
    outcome = run_order(order)
    assert outcome and outcome.error
    assert not redis.exists(keys.alert_delivery(identify(url)))


def test_process_that_ends_watches_no_more_and_what_is_kept_expires(
    redis: Redis, start_watch: StartWatch, account: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watch, "GROUP_SECONDS", 1e6)  # No message goes out.
    watching = start_watch("json://one.example")
    kill_account(redis, account)
    watching.look()
    watching.look()
    for key in (keys.ALERTS, keys.ALERT_NOTICES, keys.ALERT_RECEIVERS):
        assert 0 < redis.ttl(key) <= KEPT_SECONDS
    watching.stop()
    watching.look()
    assert not redis.exists(keys.ALERT_LEASE)


def test_notices_that_are_too_old_or_of_a_newer_version_are_not_told(redis: Redis):
    alert = Alert("upstream_down", "a", "", "the upstream is down", "the upstream was down")
    too_old = Notice.of("raised", alert, clock.now() - NOTICE_TTL_SECONDS - 60)
    present = Notice.of("raised", alert, clock.now())
    for encoded in ("{", too_old.encode(), present.encode()):
        redis.xadd(keys.ALERT_NOTICES, {"n": encoded})
    assert [notice for _, notice in read_notices(redis, "0-0")] == [present]
    for since, pool in ((9.0, "late"), (5.0, "early")):
        raised = replace(alert, pool=pool, since=since)
        redis.hset(keys.ALERTS, raised.id, raised.encode())
    assert [raised.pool for raised in read_status(redis).alerts] == ["early", "late"]


def test_delivery_is_recorded_only_by_whoever_holds_it_and_for_a_receiver_that_is_there(redis: Redis):
    record = register_script(redis, Path(watch.__file__).with_name("record_delivery.lua"))
    names = [keys.alert_delivery("r"), keys.ALERT_RECEIVERS]
    redis.set(names[0], "sender")
    assert record(keys=names, args=["sender", "r", "told"]) == 0
    redis.hset(keys.ALERT_RECEIVERS, "r", "before")
    assert record(keys=names, args=["another", "r", "told"]) == 0
    assert record(keys=names, args=["sender", "r", "told"]) == 1
    assert redis.hgetall(keys.ALERT_RECEIVERS) == {b"r": b"told"}


def test_process_that_is_known_to_be_dead_is_replaced_at_once(
    redis: Redis, start_watch: StartWatch, account: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watch, "GROUP_SECONDS", 1e6)  # No message goes out.
    dead = start_watch("json://one.example", process="dead")
    successor = start_watch("json://one.example", process="successor")
    kill_account(redis, account)
    successor.look()
    assert read_status(redis).alerts == []  # The other one has the lease.
    successor.bury("another")
    successor.look()
    assert read_status(redis).alerts == []
    successor.bury("dead")
    successor.look()
    assert [alert.rule for alert in read_status(redis).alerts] == ["account_dead"]
    open_breaker(redis)
    internals.update_alerts(dead)  # It was frozen after it had looked at the lease.
    assert [alert.rule for alert in read_status(redis).alerts] == ["account_dead"]


def test_log_names_a_service_that_does_not_exist_before_anything_happens(
    start_watch: StartWatch, caplog: pytest.LogCaptureFixture
):
    start_watch("nosuchservice://hunter2secret", checks_urls=True)
    eventually(lambda: "apprise knows no service nosuchservice://…" in caplog.text)
    assert "hunter2" not in caplog.text


def test_test_reaches_every_receiver_and_tells_which_has_failed(service: Service, start_watch: StartWatch):
    watching = start_watch(service.url, "nosuchservice://secret-token", alert_language="zh")
    result = watching.test()
    assert result["ok"] is False
    first, second = result["results"]
    assert first == {"receiver": f"json://127.0.0.1:{service.port}/…", "error": ""}
    assert second["receiver"] == "nosuchservice://…" and "knows no service" in second["error"]
    assert service.titles == ["测试"]


def test_mail_arrives_by_smtp(redis: Redis, start_watch: StartWatch, account: str, tmp_path: Path):
    with run_mail_server(tmp_path / "mail") as port:
        url = f"mailto://127.0.0.1:{port}?from=farm@example.org&to=operator@example.org"
        watching = start_watch(url)
        kill_account(redis, account)
        tell(redis, url, watching)
        (mail,) = (tmp_path / "mail" / "new").iterdir()
        text = mail.read_text()
    assert "Subject: " in text and "account bob is dead" in text and "To: operator@example.org" in text
