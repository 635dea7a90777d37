"""A worker process hands its settings of Redis on: whose word leases rest on, and what a rotated token waits for."""

from collections.abc import Iterator

import pytest
from redis import Redis

from bench.replicated_redis import ReplicatedRedis
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.ready_flag import ReadyFlag
from shared.redis_connection.client import connect
from shared.redis_connection.primary_finder import get_primary_finder
from shared.settings.schema import Settings
from tests import internals
from workers.process.worker_process import WorkerProcess
from workers.process_slot import SpawnInfo


@pytest.fixture
def client(replicated: ReplicatedRedis) -> Iterator[Redis]:
    replicated.wait_until_complete()
    client = connect(replicated.url)
    client.flushall()
    yield client
    client.connection_pool.disconnect()


@pytest.fixture
def process(replicated: ReplicatedRedis, client: Redis) -> WorkerProcess:
    unsealer = Unsealer("a secret key for tests")
    unsealer.ensure_sealing_key(client)
    settings = Settings(redis_url=replicated.url, wait_replicas=1)
    return WorkerProcess(settings, unsealer, SpawnInfo("here-1-a", "", True, 1, False, ReadyFlag()))


def test_leases_rest_on_the_majority_of_the_sentinels(
    replicated: ReplicatedRedis, client: Redis, process: WorkerProcess
):
    credentials, leases = Credentials(client), internals.leases(process)
    ids = [credentials.add("default", token)[0] for token in ("first", "second")]
    (lease,) = leases.claim("default", ids[:1], 1)
    assert lease.is_held()
    finder = get_primary_finder(replicated.url)
    assert finder
    finder.confirmed_at = float("-inf")
    (unconfirmed,) = leases.claim("default", ids[1:], 1)
    assert not unconfirmed.is_held()


def test_rotated_tokens_wait_for_replicas(replicated: ReplicatedRedis, process: WorkerProcess):
    replicated.find_primary().client.config_resetstat()
    internals.token_store(process).durable_writer.probe("here-1-a")
    # More often where the first wait was in vain, because the replica was slow.
    assert replicated.count_waits_for_replicas() >= 1
