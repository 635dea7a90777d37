"""A Redis that sentinels watch: clients find the primary, follow a failover and write to no replica."""

import signal
from collections.abc import Iterator
from types import SimpleNamespace
from urllib.parse import urlencode

import gevent
import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from bench.replicated_redis import FARM_PASSWORD, ReplicatedRedis
from shared import clock
from shared.redis_connection.auto_pipeline import AutoPipeline
from shared.redis_connection.client import build_server_url, check_server, connect, create_dedicated_pool
from shared.redis_connection.primary_finder import find_confirmation, get_primary_finder
from tests.waiting import eventually
from workers.worker.blocking_pop import BlockingPop


@pytest.fixture
def client(replicated: ReplicatedRedis) -> Iterator[Redis]:
    replicated.wait_until_complete()
    client = connect(replicated.url)
    yield client
    client.connection_pool.disconnect()


def is_written(client: Redis) -> bool:
    try:
        return bool(client.set("farm:test", "1"))
    except RedisError:
        return False


def test_clients_write_to_the_primary_that_the_sentinels_name(replicated: ReplicatedRedis, client: Redis):
    check_server(client)
    port = replicated.find_primary().port
    assert client.config_get("port") == {"port": str(port)}
    assert build_server_url(replicated.url) == f"redis://127.0.0.1:{port}/0"
    assert AutoPipeline(client, eager=True).execute("CONFIG", "GET", "port")[1] == str(port).encode()


def test_wrong_password_for_the_sentinels_finds_none(replicated: ReplicatedRedis):
    url = replicated.farm_url.replace(urlencode({"sentinel_password": FARM_PASSWORD}), "sentinel_password=wr0ng")
    with pytest.raises(RedisError, match="no sentinel"):
        connect(url).ping()


def test_unknown_service_and_silent_sentinels_are_reported(replicated: ReplicatedRedis):
    with pytest.raises(RedisError, match="no sentinel of REDIS_URL names the primary of 'other'"):
        connect(replicated.url.replace("/farm/", "/other/")).ping()
    with pytest.raises(RedisError, match="no sentinel"):
        connect("redis+sentinel://127.0.0.1:1/farm").ping()


def test_server_that_has_become_a_replica_is_not_written_to(replicated: ReplicatedRedis, client: Redis):
    primary = replicated.find_primary()
    replica = next(server for server in replicated.servers if server is not primary)
    pipeline, script = (
        AutoPipeline(client, eager=True),
        client.register_script("return redis.call('SET', KEYS[1], '1')"),
    )
    assert pipeline.execute("SET", "farm:test", "1")
    assert script(keys=["farm:test"])
    primary.client.replicaof("127.0.0.1", replica.port)
    try:
        # Connections that are open notice it by the refusal, whoever sends the write, and new ones by the role.
        for use in (
            lambda: client.set("farm:test", "2"),
            lambda: script(keys=["farm:test"]),
            lambda: pipeline.execute("SET", "farm:test", "2"),
            lambda: connect(replicated.url).get("farm:test"),
        ):
            with pytest.raises(RedisConnectionError, match=r"no longer the primary|is a replica"):
                use()
    finally:
        primary.client.replicaof("no", "one")


def test_connection_that_was_opened_to_a_former_primary_is_not_used(replicated: ReplicatedRedis, client: Redis):
    check_server(client)
    finder = get_primary_finder(replicated.url)
    assert finder is not None
    with pytest.raises(RedisConnectionError, match="failover"):
        finder.add(SimpleNamespace(peer=("127.0.0.1", 1), open_socket=None))


def test_without_a_majority_the_primary_is_not_certain(replicated: ReplicatedRedis, client: Redis):
    finder = get_primary_finder(replicated.url)
    assert finder is not None
    watching = gevent.spawn(finder.watch)
    before = clock.lease_time()
    eventually(lambda: find_confirmation(replicated.url) > before)
    stopped = replicated.sentinels[1:]
    for sentinel in stopped:
        sentinel.process.send_signal(signal.SIGSTOP)
    try:
        asked = clock.lease_time()
        finder.find()
        eventually(lambda: finder.asked_at > asked + 1)
        assert find_confirmation(replicated.url) < asked
        # It is still written to, by who needs no lease.
        assert is_written(client)
    finally:
        for sentinel in stopped:
            sentinel.process.send_signal(signal.SIGCONT)
    eventually(lambda: find_confirmation(replicated.url) > asked)
    watching.kill()
    assert find_confirmation("redis://127.0.0.1") >= asked


def test_frozen_primary_is_left_when_another_is_promoted(replicated: ReplicatedRedis, client: Redis):
    watching = gevent.spawn(get_primary_finder(replicated.url).watch)  # type: ignore[union-attr]
    frozen = replicated.find_primary()
    pop = BlockingPop(create_dedicated_pool(replicated.url), "farm:from", "farm:to")
    waiting = gevent.spawn(pop.pop, 600)
    eventually(lambda: pop.client_id)
    frozen.process.send_signal(signal.SIGSTOP)
    try:
        replicated.wait_for_promotion(frozen)
        # The frozen server never closes a connection, and the worker's has no timeout for ten minutes.
        with pytest.raises(RedisError):
            waiting.get(timeout=30)
        eventually(lambda: is_written(client))
        assert client.config_get("port") == {"port": str(replicated.find_primary().port)}
    finally:
        frozen.process.send_signal(signal.SIGCONT)
        watching.kill()
