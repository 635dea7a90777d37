"""Runs a Redis with replicas and three sentinels, whose primary can be killed.

Its user FARM_USER has the rights that docs/configuration.md asks for, and no others.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

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
#: Seconds since its last question up to which a process counts as one that asks every second.
WATCHER_IDLE_SECONDS = 3
#: What the farm's user may do at Redis, and at the sentinels, as docs/configuration.md states it.
RIGHTS = "~farm:* ~rq:* &* +@all -@dangerous +info +client|id +client|unblock"
SENTINEL_RIGHTS = "-@all +auth +sentinel|get-master-addr-by-name"
#: With characters that a URL has to escape.
FARM_USER, FARM_PASSWORD = "farm@one", "p@ss/word:1"


class ServerProgram:
    """The server program, and the certificate with which it speaks TLS only; it speaks none without."""

    def __init__(self, path: str = "", certificate: Path | None = None) -> None:
        """`path`: '' for the private Redis's program. The key is beside the certificate, with the suffix `.key`."""
        self.path = path or redis_server.find_programs()[0]
        self.certificate = certificate

    def list_settings(self, port: int) -> str:
        """Lines of the configuration file."""
        if not self.certificate:
            return f"port {port}\n"
        key = self.certificate.with_suffix(".key")
        return (
            f"port 0\ntls-port {port}\ntls-replication yes\ntls-auth-clients no\n"
            f"tls-cert-file {self.certificate}\ntls-key-file {key}\ntls-ca-cert-file {self.certificate}\n"
        )

    def list_client_options(self) -> dict[str, Any]:
        """Arguments of redis-py's client."""
        return {"ssl": True, "ssl_ca_certs": str(self.certificate)} if self.certificate else {}


class Server:
    """One server or sentinel, which keeps its port and its configuration file when it is started again."""

    def __init__(self, home: Path, program: ServerProgram, settings: str, *options: str) -> None:
        home.mkdir()
        self.port = find_free_port()
        config = home / "server.conf"
        config.write_text(
            f"{program.list_settings(self.port)}bind 127.0.0.1\ndir {home}\nlogfile {home}/log\n{settings}\n"
        )
        self._command = [program.path, str(config), *options]
        #: Its administrator's.
        self.client = Redis(port=self.port, socket_timeout=5, **program.list_client_options())
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def has_role(self, role: bytes) -> bool:
        with suppress(RedisError):
            return bool(self.client.execute_command("ROLE")[0] == role)
        return False


class ReplicatedRedis:
    """A primary, its replicas, and the sentinels."""

    def __init__(self, home: Path, replicas: int = 2, program: ServerProgram | None = None) -> None:
        program = program or ServerProgram()
        self._certificate = program.certificate
        user = f"user {FARM_USER} on >{FARM_PASSWORD}"
        settings = f'appendonly yes\nsave ""\n{user} {RIGHTS}\n'
        self.servers = [Server(home / "redis-0", program, settings)]
        first_port = self.servers[0].port
        for number in range(replicas):
            replica_settings = f"{settings}replicaof 127.0.0.1 {first_port}\n"
            self.servers.append(Server(home / f"redis-{number + 1}", program, replica_settings))
        sentinel_settings = (
            f"sentinel monitor {SERVICE} 127.0.0.1 {first_port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} 10000\n{user} {SENTINEL_RIGHTS}\n"
        )
        self.sentinels = [
            Server(home / f"sentinel-{number}", program, sentinel_settings, "--sentinel") for number in range(SENTINELS)
        ]

    @property
    def url(self) -> str:
        """For an administrator, without TLS."""
        return f"redis+sentinel://{self._addresses}/{SERVICE}/0"

    @property
    def farm_url(self) -> str:
        """For the farm's user, with TLS if the servers speak it."""
        login = f"{quote(FARM_USER, safe='')}:{quote(FARM_PASSWORD, safe='')}"
        options = {"sentinel_username": FARM_USER, "sentinel_password": FARM_PASSWORD}
        if self._certificate:
            options["ssl_ca_certs"] = str(self._certificate)
        scheme = "rediss" if self._certificate else "redis"
        return f"{scheme}+sentinel://{login}@{self._addresses}/{SERVICE}/0?{urlencode(options)}"

    @property
    def _addresses(self) -> str:
        return ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)

    def count_watchers(self) -> int:
        """Processes that have asked the first sentinel for the primary within the last seconds."""
        clients = self.sentinels[0].client.client_list()
        asking = [client for client in clients if client["cmd"] == "sentinel|get-master-addr-by-name"]
        return sum(int(client["idle"]) <= WATCHER_IDLE_SECONDS for client in asking)

    def count_waits_for_replicas(self) -> int:
        """How often the present primary has been asked to wait until its replicas hold a write."""
        statistics = self.find_primary().client.info("commandstats")
        return int(statistics.get("cmdstat_wait", {"calls": 0})["calls"])

    def list_denials(self) -> list[str]:
        """What servers and sentinels have refused their users for want of a right.

        But for the name that redis-py gives itself (CLIENT SETINFO): it goes on without.
        """
        running = [server for server in (*self.servers, *self.sentinels) if server.process.poll() is None]
        entries = [entry for server in running for entry in server.client.acl_log()]
        return [str(entry["object"]) for entry in entries if entry["object"] not in ("client", "client|setinfo")]

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
    home: Path, replicas: int = 2, program: ServerProgram | None = None
) -> Iterator[ReplicatedRedis]:
    """Runs it, complete."""
    redis = ReplicatedRedis(home, replicas, program)
    try:
        redis.wait_until_complete()
        yield redis
    finally:
        redis.stop()
