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
from shared.observability import event_log
from shared.observability.audit_log import AuditLog
from shared.observability.counters import Counters
from shared.observability.event_log import (
    MAX_BUFFERED,
    MAX_TEXT_LENGTH,
    Event,
    EventBuffer,
    EventFilter,
    decode_event,
    read_events,
    read_events_after,
)
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


def test_death_of_a_worker_process_is_an_event_of_its_accounts(
    redis: Redis, buffer: EventBuffer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(event_log, "MAX_CREDENTIALS", 2)
    log.warning("died", extra={"action": "process_buried", "worker_process": "p1", "credentials": ["c1", "c2", "c3"]})
    log.warning("died", extra={"action": "process_buried", "worker_process": "p2", "credentials": []})
    buffer.write()
    for credential, processes in (("c1", ["p1"]), ("c2", ["p1"]), ("c3", []), ("", ["p2", "p1"])):
        assert [event.worker_process for event in read(redis, credential=credential)] == processes
    add(redis, 1.0, 2e9, credentials=5, pool="c1")
    assert [event.worker_process for event in read(redis, credential="c1")] == ["p1"]


def test_unreadable_event_breaks_nothing(redis: Redis):
    redis.xadd(keys.EVENTS, {"e": "{"})
    redis.xadd(keys.EVENTS, {"x": "y"})
    redis.xadd(keys.EVENTS, {"e": json.dumps({"kind": ["of", "a", "newer", "version"], "t": "now"})})
    assert [event.time for event in read(redis)] == [0.0, 0.0, 0.0]


def test_event_is_written_when_redis_is_back(redis: Redis, buffer: EventBuffer, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any, **__: Any) -> Any:
        raise RedisError("Redis is away")

    log.warning("lease %s lost%s", "a", "!" * MAX_TEXT_LENGTH, extra={"action": "lease_lost"})
    with monkeypatch.context() as away:
        away.setattr(redis, "execute_command", refuse)
        with pytest.raises(RedisError):
            buffer.write()
    buffer.write()
    (event,) = read(redis)
    assert event.message.startswith("lease a lost!") and len(event.message) == MAX_TEXT_LENGTH


def test_events_are_bounded(redis: Redis, buffer: EventBuffer, monkeypatch: pytest.MonkeyPatch):
    """Redis drops whole blocks, of a hundred entries."""
    monkeypatch.setattr(event_log, "MAX_EVENTS", 10)
    for number in range(300):
        log.info("%d", number, extra={"action": "orphan_found"})
    buffer.write()
    assert 10 <= redis.xlen(keys.EVENTS) < 200
    for number in range(300):
        AuditLog(redis).record("command line", "key.create", f"k{number}")
    assert 10 <= redis.xlen(keys.EVENTS) < 200


def add(redis: Redis, at: float, written_at: float, **fields: Any) -> str:
    """Adds an event to the stream; returns its id."""
    event = {"t": at, "kind": "lease_lost", **fields}
    return str(redis.xadd(keys.EVENTS, {"e": json.dumps(event)}, id=f"{int(1000 * written_at)}-0").decode())


def test_event_is_found_by_when_it_happened_not_by_when_it_was_written(redis: Redis):
    add(redis, 1000.0, 970.0)  # The clocks of hosts differ.
    add(redis, 2000.0, 2300.0)  # Redis was away.
    assert [event.time for event in read(redis, since=990.0, until=1001.0)] == [1000.0]
    assert [event.time for event in read(redis, since=1990.0, until=2001.0)] == [2000.0]
    assert read(redis, since=960.0, until=990.0) == read(redis, since=2200.0, until=2400.0) == []
    assert [event.time for event in read(redis, since=2000.0, until=2000.5)] == [2000.0]
    assert read(redis, since=1990.0, until=2000.0) == []


def test_events_after_one_are_read_page_by_page(redis: Redis, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(event_log, "PAGE_SIZE", 2)
    first, *others = [add(redis, float(at), float(at)) for at in range(1, 7)]
    assert [event.id for event in read_events_after(redis, first)] == others


def test_events_of_others_are_not_decoded(redis: Redis, monkeypatch: pytest.MonkeyPatch):
    for at in range(1, 4):
        add(redis, float(at), float(at), pool="other")
    wanted, decoded = add(redis, 4.0, 4.0, pool="a"), list[str]()

    def decode(id_: str, encoded: bytes) -> Event:
        decoded.append(id_)
        return decode_event(id_, encoded)

    monkeypatch.setattr(event_log, "decode_event", decode)
    assert [event.id for event in read(redis, pool="a")] == decoded == [wanted]


def test_fault_of_a_newer_version_is_left_out(redis: Redis):
    add(redis, 1.0, 1.0, faults=["newer", {"t": 1.0, "reason": "timeout"}])
    add(redis, 2.0, 2.0, faults="newer")
    assert [[fault.reason for fault in event.faults] for event in read(redis)] == [[], ["timeout"]]
