"""The farm's time line: what workers log and operators change."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.credentials.evidence import Evidence
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.observability.audit_log import AuditLog
from shared.observability.counters import Counters
from shared.observability.event_log import MAX_BUFFERED, Event, EventBuffer, EventFilter, read_events
from workers.worker.credential_states import CredentialStates

log = logging.getLogger("farm.test")


@pytest.fixture
def buffer(redis: Redis) -> Iterator[EventBuffer]:
    """Events are collected although the log shows errors only."""
    root, farm = logging.getLogger(), logging.getLogger("farm")
    levels = root.level, farm.level
    root.setLevel(logging.ERROR)
    buffer = EventBuffer(redis)
    buffer.start()
    yield buffer
    farm.removeHandler(buffer)
    root.setLevel(levels[0])
    farm.setLevel(levels[1])


def read(redis: Redis, **filters: Any) -> list[Event]:
    return list(read_events(redis, EventFilter(**filters)))


def test_change_of_a_credential_is_an_event(redis: Redis, unsealer: Unsealer, buffer: EventBuffer):
    credential_id, _ = Credentials(redis).add("default", "a-token")
    states = CredentialStates(Credentials(redis), Counters())
    states.set("default", credential_id, "cooling", "rate_limited", 1e9, Evidence("upstream", 429, "rate_limited"))
    buffer.write()
    (event,) = read(redis)
    assert (event.kind, event.pool, event.credential) == ("credential_cooling", "default", credential_id)
    assert (event.reason, event.until, event.message) == ("rate_limited", 1e9, "credential is cooling")
    assert event.evidence == "upstream 429 rate_limited"


def test_other_log_records_are_no_events(redis: Redis, buffer: EventBuffer):
    log.info("attempt failed", extra={"action": "attempt_failed"})
    log.error("something")
    buffer.write()
    assert read(redis) == []


def test_operators_changes_are_events(redis: Redis):
    AuditLog(redis).record("command line", "key.create", "k1", {"rpm": 5})
    (event,) = read(redis)
    assert (event.kind, event.reason, event.who, event.target) == ("operator", "key.create", "command line", "k1")


def test_events_are_written_once_although_the_reply_is_lost(
    redis: Redis, buffer: EventBuffer, monkeypatch: pytest.MonkeyPatch
):
    log.warning("lease lost", extra={"action": "lease_lost"})
    execute = redis.execute_command

    def write_and_lose(*arguments: Any, **options: Any) -> Any:
        execute(*arguments, **options)
        raise RedisError("the reply is lost")

    monkeypatch.setattr(redis, "execute_command", write_and_lose)
    with pytest.raises(RedisError):
        buffer.write()
    monkeypatch.undo()
    buffer.write()
    assert [event.kind for event in read(redis)] == ["lease_lost"]


def test_buffer_keeps_the_latest_while_redis_is_away(redis: Redis, buffer: EventBuffer):
    for number in range(MAX_BUFFERED + 5):
        log.info("%d", number, extra={"action": "orphan_found"})
    buffer.write()
    events = read(redis)
    assert (len(events), events[0].message) == (MAX_BUFFERED, str(MAX_BUFFERED + 4))


def test_events_are_filtered(redis: Redis, buffer: EventBuffer):
    log.error("down", extra={"action": "breaker_opened", "pool": "a", "reason": "timeout"})
    log.warning("up", extra={"action": "breaker_closed", "pool": "a"})
    log.error("down", extra={"action": "breaker_opened", "pool": "b", "reason": "timeout"})
    buffer.write()
    assert [event.pool for event in read(redis, kind="breaker_opened")] == ["b", "a"]
    assert [event.kind for event in read(redis, pool="a")] == ["breaker_closed", "breaker_opened"]
    assert read(redis, credential="c1") == []
    assert read(redis, until=1.0) == []
    assert read(redis, since=1e12) == []


def test_unreadable_event_breaks_nothing(redis: Redis):
    redis.xadd(keys.EVENTS, {"e": "{"})
    redis.xadd(keys.EVENTS, {"x": "y"})
    redis.xadd(keys.EVENTS, {"e": json.dumps({"kind": ["of", "a", "newer", "version"], "t": "now"})})
    assert [event.time for event in read(redis)] == [0.0, 0.0, 0.0]
