"""With FARM_WAIT_REPLICAS a rotated refresh token is held by replicas before its access token is used (I4)."""

import signal
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from bench.replicated_redis import ReplicatedRedis, Server
from shared.credentials.unsealing import Unsealer
from shared.redis_connection.client import build_server_url, connect
from tests.integration.harness import WorkerHarness, collect_frames
from tests.upstream import Upstream, first_refresh_tokens
from tests.waiting import eventually
from workers.credentials import durability


@pytest.fixture
def frozen_replica(replicated: ReplicatedRedis) -> Iterator[Server]:
    primary = replicated.find_primary()
    replica = next(server for server in replicated.servers if server is not primary)
    replica.process.send_signal(signal.SIGSTOP)
    yield replica
    replica.process.send_signal(signal.SIGCONT)


@pytest.fixture
def harness(replicated: ReplicatedRedis, frozen_replica: Server, upstream: Upstream) -> Iterator[WorkerHarness]:
    """A worker that has no access token yet."""
    url = build_server_url(replicated.url)
    redis = connect(url)
    redis.flushall()
    unsealer = Unsealer("a secret key for tests")
    unsealer.ensure_sealing_key(redis)
    with closing(WorkerHarness(redis, url, unsealer, upstream, wait_replicas=1)) as harness:
        yield harness
    redis.connection_pool.disconnect()


@pytest.fixture
def set_patience(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Sets how long, in milliseconds, and how often replicas are waited for."""

    def set_both(timeout: int, tries: int) -> None:
        monkeypatch.setattr(durability, "FSYNC_TIMEOUT_MS", timeout)
        monkeypatch.setattr(durability, "FSYNC_TRIES", tries)

    return set_both


def test_request_is_sent_only_when_a_replica_holds_the_rotated_token(
    frozen_replica: Server, harness: WorkerHarness, set_patience: Callable[[int, int], None]
):
    set_patience(500, 200)
    mailbox = harness.enqueue()
    store = harness.services.refreshes.store
    eventually(lambda: store.load(harness.credential_id)[0] != first_refresh_tokens(1)[0])
    eventually(lambda: int(harness.redis.info("commandstats").get("cmdstat_wait", {"calls": 0})["calls"]) > 1)
    assert harness.upstream.counters()["served"] == 0
    frozen_replica.process.send_signal(signal.SIGCONT)
    assert collect_frames(mailbox, within=60)
    assert harness.upstream.counters()["served"] == 1
    assert harness.services.counters.value("tokens_not_durable", "replicas") == 0


def test_missing_replica_is_waited_for_a_while_and_is_an_error_in_the_log(
    harness: WorkerHarness, set_patience: Callable[[int, int], None], caplog: pytest.LogCaptureFixture
):
    set_patience(200, 3)
    assert collect_frames(harness.enqueue(), within=60)
    assert harness.services.counters.value("tokens_not_durable", "replicas") == 1
    assert [record.action for record in caplog.records if record.levelname == "ERROR"] == ["no_replicas"]
