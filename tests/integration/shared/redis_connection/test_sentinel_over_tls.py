"""rediss+sentinel://: servers and sentinels that speak TLS only, and a user with no right beyond those documented."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import gevent
import pytest
from redis import Redis
from redis.exceptions import RedisError

from bench.replicated_redis import ReplicatedRedis, ServerProgram, run_replicated_redis
from shared.credentials.unsealing import Unsealer
from shared.redis_connection.client import check_server, connect
from shared.redis_connection.primary_finder import get_primary_finder
from shared.redis_connection.retry import retry_for
from simulator.certificate import create_tls_context
from tests.environment import require_program
from tests.integration.harness import WorkerHarness, collect_frames, hold_forever
from tests.upstream import Upstream
from tests.waiting import eventually


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicatedRedis]:
    """Debian's server, because the bundled one is built without TLS."""
    home = tmp_path_factory.mktemp("secured")
    certificate = home / "redis.pem"
    create_tls_context(certificate)
    program = ServerProgram(require_program("redis-server"), certificate)
    with run_replicated_redis(home, replicas=1, program=program) as secured:
        yield secured


@pytest.fixture
def harness(secured: ReplicatedRedis, upstream: Upstream) -> Iterator[WorkerHarness]:
    redis = connect(secured.farm_url)
    check_server(redis)
    unsealer = Unsealer("a secret key for tests")
    unsealer.ensure_sealing_key(redis)
    with closing(WorkerHarness(redis, secured.farm_url, unsealer, upstream, wait_replicas=1)) as harness:
        hold_forever(redis, [harness.lease])
        finder = get_primary_finder(secured.farm_url)
        assert finder
        watcher = gevent.spawn(finder.watch)
        yield harness
        watcher.kill()
    redis.connection_pool.disconnect()


def test_server_and_sentinels_are_verified(secured: ReplicatedRedis, tmp_path: Path):
    create_tls_context(tmp_path / "other.pem")
    url, _, _ = secured.farm_url.partition("ssl_ca_certs=")
    with pytest.raises(RedisError, match="no sentinel"):
        connect(f"{url}ssl_ca_certs={tmp_path / 'other.pem'}").ping()


def await_replica(redis: Redis) -> None:
    """Waits until the replica has all that was written: what it lacks, the end of a job, is lost in a failover."""
    with redis.pipeline(transaction=False) as pipe:
        pipe.set("farm:test", 1)
        pipe.execute_command("WAIT", 1, 60_000)
        assert pipe.execute()[1] == 1


def test_requests_are_served_before_and_after_a_failover(secured: ReplicatedRedis, harness: WorkerHarness):
    assert collect_frames(harness.enqueue("req_1"), within=60)
    harness.wait_until_idle()
    await_replica(harness.redis)
    killed = secured.kill_primary()
    assert collect_frames(retry_for(lambda: harness.enqueue("req_2")), within=60)
    assert harness.upstream.counters()["served"] == 2
    assert harness.services.counters.value("tokens_not_durable", "replicas") == 0
    assert secured.list_denials() == []
    killed.start()
    eventually(lambda: killed.has_role(b"slave"))
