"""Runs a Redis with replicas and three sentinels, whose primary can be killed."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from bench.farm import find_free_port
from launcher.processes import redis_server

SERVICE = "farm"
SENTINELS = 3
#: Milliseconds of silence after which a sentinel takes the primary for dead.
DOWN_AFTER_MS = 3000
#: Seconds within which servers and sentinels find each other, or fail over.
TIMEOUT_SECONDS = 60.0


class Server:
    """One server or sentinel, which keeps its port and its configuration file when it is started again."""

    def __init__(self, home: Path, settings: str, *options: str) -> None:
        home.mkdir()
        self.port = find_free_port()
        self._config = home / "server.conf"
        self._config.write_text(f"port {self.port}\nbind 127.0.0.1\ndir {home}\nlogfile {home}/log\n{settings}")
        self._options = options
        self.client = Redis(port=self.port, socket_timeout=5)
        self.start()

    def start(self) -> None:
        program = redis_server.find_programs()[0]
        self.process = subprocess.Popen([program, str(self._config), *self._options], stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def has_role(self, role: bytes) -> bool:
        with suppress(RedisError):
            return bool(self.client.execute_command("ROLE")[0] == role)
        return False


class ReplicatedRedis:
    """A primary, its replicas, and the sentinels."""

    def __init__(self, home: Path, replicas: int = 2, settings: str = "", sentinel_settings: str = "") -> None:
        """`settings` and `sentinel_settings` are lines of the configuration files."""
        settings = f'appendonly yes\nsave ""\n{settings}\n'
        self.servers = [Server(home / "redis-0", settings)]
        first_port = self.servers[0].port
        for number in range(replicas):
            self.servers.append(Server(home / f"redis-{number + 1}", f"{settings}replicaof 127.0.0.1 {first_port}\n"))
        self.sentinels = [
            Server(
                home / f"sentinel-{number}",
                f"sentinel monitor {SERVICE} 127.0.0.1 {first_port} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
                f"sentinel failover-timeout {SERVICE} 10000\n{sentinel_settings}\n",
                "--sentinel",
            )
            for number in range(SENTINELS)
        ]

    @property
    def url(self) -> str:
        addresses = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{addresses}/{SERVICE}/0"

    def find_primary(self) -> Server:
        """The server that a majority of the sentinels names."""
        ports = [self._ask(sentinel) for sentinel in self.sentinels]
        return next(server for server in self.servers if ports.count(server.port) > SENTINELS // 2)

    def _ask(self, sentinel: Server) -> int:
        with suppress(RedisError):
            return int(sentinel.client.execute_command("SENTINEL", "get-master-addr-by-name", SERVICE)[1])
        return 0

    def wait_until_complete(self) -> None:
        """Waits until every server but the primary is its replica, and every sentinel knows all of them."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not self._is_complete():
            if time.monotonic() > deadline:
                raise RuntimeError("the replicas or sentinels have not found each other")
            time.sleep(0.1)

    def _is_complete(self) -> bool:
        with suppress(RedisError, StopIteration):
            primary = self.find_primary()
            online = primary.client.info("replication")["connected_slaves"] == len(self.servers) - 1
            others = [sentinel.client.sentinel_master(SERVICE) for sentinel in self.sentinels]
            knows = [(o["num-slaves"], o["num-other-sentinels"]) for o in others]
            return bool(online) and knows == [(len(self.servers) - 1, SENTINELS - 1)] * SENTINELS
        return False

    def kill_primary(self) -> Server:
        """Kills the primary; returns it once another server has been promoted."""
        killed = self.find_primary()
        killed.kill()
        self.wait_for_promotion(killed)
        return killed

    def wait_for_promotion(self, former: Server) -> None:
        """Waits until a majority names another primary, which knows that it is one."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            with suppress(StopIteration):
                primary = self.find_primary()
                if primary is not former and primary.has_role(b"master"):
                    return
            time.sleep(0.02)
        raise RuntimeError("no replica was promoted")

    def stop(self) -> None:
        for server in (*self.sentinels, *self.servers):
            server.kill()
            server.client.close()


@contextmanager
def run_replicated_redis(
    home: Path, replicas: int = 2, settings: str = "", sentinel_settings: str = ""
) -> Iterator[ReplicatedRedis]:
    """Runs it, complete."""
    redis = ReplicatedRedis(home, replicas, settings, sentinel_settings)
    try:
        redis.wait_until_complete()
        yield redis
    finally:
        redis.stop()
