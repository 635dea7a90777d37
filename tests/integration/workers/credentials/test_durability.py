"""A rotated refresh token is on disk before its access token is used (I4): WAITAOF on a server that has it."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gevent
import pytest
from redis import Redis

from shared import clock, keys
from shared.credentials.unsealing import Unsealer
from shared.observability.durability import Durability, read_durability
from shared.redis_connection.client import connect
from tests.integration.harness import WorkerHarness, collect_frames
from tests.own_redis import run_redis
from tests.upstream import Upstream, first_refresh_tokens
from tests.waiting import eventually
from workers.credentials import durability


@pytest.fixture(scope="module")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with run_redis(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture
def valkey(valkey_url: str) -> Iterator[Redis]:
    client = connect(valkey_url)
    if client.info("server")["redis_version"] < "7.2":
        pytest.skip("the server that TEST_REDIS_SERVER names has no WAITAOF")
    client.flushall()
    client.config_resetstat()
    yield client
    client.config_set("appendfsync", "everysec")
    client.config_set("appendonly", "yes")
    client.connection_pool.disconnect()


@pytest.fixture
def harness(valkey: Redis, valkey_url: str, upstream: Upstream, monkeypatch) -> Iterator[WorkerHarness]:
    """A worker on Valkey whose fsync has been switched off: it has no access token yet."""
    valkey.config_set("appendfsync", "no")
    # So that no stalled machine runs out of tries while the test still looks.
    monkeypatch.setattr(durability, "FSYNC_TRIES", 40)
    unsealer = Unsealer("a secret key for tests")
    unsealer.ensure_sealing_key(valkey)
    with closing(WorkerHarness(valkey, valkey_url, unsealer, upstream)) as harness:
        yield harness


def count_waits(valkey: Redis) -> int:
    """How often WAITAOF has been called."""
    statistics: dict[str, Any] = valkey.info("commandstats").get("cmdstat_waitaof", {"calls": 0})
    return int(statistics["calls"])


def test_request_is_sent_only_when_the_rotated_token_is_on_disk(harness: WorkerHarness, valkey: Redis):
    mailbox = harness.enqueue()
    store = harness.services.refreshes.store
    eventually(lambda: store.load(harness.credential_id)[0] != first_refresh_tokens(1)[0])
    eventually(lambda: count_waits(valkey) >= 1)
    gevent.sleep(0.2)
    counters = harness.upstream.counters()
    assert (counters["refreshes"], counters["served"], counters["in_flight"]) == (1, 0, 0)
    valkey.config_set("appendfsync", "everysec")
    assert collect_frames(mailbox, within=60)
    assert harness.upstream.counters()["served"] == 1
    assert harness.services.counters.value("tokens_not_durable", "slow") == 0


def test_disk_that_does_not_sync_is_waited_for_a_while_and_is_an_error_in_the_log(
    harness: WorkerHarness, valkey: Redis, monkeypatch, caplog
):
    monkeypatch.setattr(durability, "FSYNC_TRIES", 3)
    monkeypatch.setattr(durability, "FSYNC_TIMEOUT_MS", 200)
    assert collect_frames(harness.enqueue(), within=60)
    assert count_waits(valkey) == 3
    assert harness.services.counters.value("tokens_not_durable", "slow") == 1
    assert [record.action for record in caplog.records if record.levelname == "ERROR"] == ["slow_fsync"]


def test_server_without_an_append_only_file_is_an_error_in_the_log(harness: WorkerHarness, valkey: Redis, caplog):
    valkey.config_set("appendonly", "no")
    assert collect_frames(harness.enqueue(), within=60)
    assert harness.services.counters.value("tokens_not_durable", "no_aof") == 1
    assert [record.action for record in caplog.records if record.levelname == "ERROR"] == ["no_fsync"]


def test_state_that_operators_see_begins_and_ends_with_its_cause(harness: WorkerHarness, valkey: Redis, monkeypatch):
    monkeypatch.setattr(durability, "FSYNC_TRIES", 1)
    monkeypatch.setattr(durability, "FSYNC_TIMEOUT_MS", 200)
    writer = harness.services.refreshes.store.durable_writer
    assert read_durability(valkey).state == "unknown"
    valkey.zadd(keys.PROCESSES, {"w1": clock.now()})
    writer.probe("w1")
    slow = read_durability(valkey)
    assert (slow.state, bool(slow.since), len(slow.warnings)) == ("slow", True, 1)
    assert valkey.ttl(keys.process("w1")) > 0
    valkey.config_set("appendonly", "no")
    assert read_durability(valkey).state == "no_aof"
    valkey.config_set("appendonly", "yes")
    valkey.config_set("appendfsync", "everysec")
    monkeypatch.setattr(durability, "FSYNC_TIMEOUT_MS", 60_000)
    writer.probe("w1")
    assert (read_durability(valkey).state, read_durability(valkey).warnings) == ("confirmed", [])


def test_worst_state_of_the_worker_processes_is_the_farms(valkey: Redis):
    valkey.zadd(keys.PROCESSES, {"w1": 1, "w2": 2, "older": 3})
    valkey.hset(keys.process("w1"), mapping={"durability": "confirmed", "durability_since": 5})
    valkey.hset(keys.process("w2"), mapping={"durability": "replicas", "durability_since": 7})
    valkey.hset(keys.process("older"), "capacity", 1)
    assert read_durability(valkey) == Durability("replicas", 7.0)
