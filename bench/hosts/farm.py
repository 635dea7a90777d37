"""A farm over several hosts: the store, the upstream, two fronts and three hosts of workers."""

import base64
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from redis import Redis
from redis.exceptions import RedisError

from bench.farm import API_KEY
from bench.hosts.network import HERE, Network, run_network
from bench.simulator import SimulatorProcess
from launcher.processes import redis_server
from shared.api_keys.store import ApiKeys
from shared.observability.pool_status import read_pool_statuses

STORE, UPSTREAM = "store", "upstream"
FRONTS, WORKERS = ("front1", "front2"), ("workers1", "workers2", "workers3")
REDIS_PORT, UPSTREAM_PORT, FRONT_PORT = 6379, 9000, 8000
#: Round trip in milliseconds between a host and the store.
STORE_ROUND_TRIPS_MS = {"front1": 1, "front2": 5, "workers1": 1, "workers2": 5, "workers3": 20}
#: The same between a host of workers and the upstream.
UPSTREAM_ROUND_TRIP_MS = 5
#: Seconds until everything must have started.
START_TIMEOUT_SECONDS = 90.0
BIN = Path(sys.executable).parent


@dataclass
class HostedFarm:
    """The running farm."""

    network: Network
    upstream: SimulatorProcess
    redis: Redis
    #: Logs of all processes.
    folder: Path

    def read_ready(self, front: str) -> bool:
        """Whether the front says that it can serve."""
        url = f"http://{self.network.address(front)}:{FRONT_PORT}/readyz"
        with suppress(OSError), urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
        return False

    def count_workers(self) -> int:
        return sum(read_pool_statuses(self.redis, ["default"])[0].workers.values())

    def set_links(self, one: str, others: tuple[str, ...], *, is_cut: bool) -> None:
        """Cuts or restores the links between one host and others."""
        for other in others:
            self.network.set_link(one, other, is_cut=is_cut)


@contextmanager
def run_hosted_farm(accounts: int, *arguments: str, loss: float = 0.01, **settings: str) -> Iterator[HostedFarm]:
    """Runs the farm once all its workers are there; the arguments are the simulator's, the settings the farm's."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="farm-bench-")))
        network = stack.enter_context(run_network(STORE, UPSTREAM, *FRONTS, *WORKERS))
        set_round_trips(network, loss)
        url = f"http://{network.address(UPSTREAM)}:{UPSTREAM_PORT}"
        redis = Redis(host=network.address(STORE), port=REDIS_PORT, socket_timeout=5)
        starter = Starter(stack, network, folder)
        simulator = [sys.executable, "-m", "simulator", *list_simulator_arguments(accounts), *arguments]
        upstream = SimulatorProcess(url, accounts, starter.start(UPSTREAM, *simulator))
        starter.start(STORE, redis_server.find_programs()[0], *list_redis_arguments(folder))
        farm = HostedFarm(network, upstream, redis, folder)
        wait_for(lambda: is_up(redis), starter)
        ApiKeys(redis).create_if_missing(API_KEY, "bench")
        environment = {**build_environment(farm), **settings}
        for host in WORKERS:
            starter.start(host, sys.executable, "-m", "workers", **environment, FARM_DATA_DIR=str(folder / host))
        for host in FRONTS:
            own = {"HOST": network.address(host), "PORT": str(FRONT_PORT), "FARM_DATA_DIR": str(folder / host)}
            starter.start(host, str(BIN / "gunicorn"), "-c", "python:web.gunicorn_conf", **(environment | own))
        wait_for(lambda: farm.count_workers() == accounts and all(map(farm.read_ready, FRONTS)), starter)
        yield farm


def build_environment(farm: HostedFarm) -> dict[str, str]:
    """The settings that all hosts share."""
    tokens = farm.folder / "tokens"
    tokens.write_text("\n".join(farm.upstream.refresh_tokens()))
    return {
        "REDIS_URL": f"redis://{farm.network.address(STORE)}:{REDIS_PORT}",
        "FARM_SECRET_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
        "FARM_UPSTREAM_URL": f"{farm.upstream.url}/v1",
        "FARM_TOKEN_URL": f"{farm.upstream.url}/oauth/token",
        "FARM_REFRESH_TOKENS_FILE": str(tokens),
        "FARM_WORKER_PROCESSES": "1",
        "WEB_CONCURRENCY": "1",
        "FARM_LOG_LEVEL": "warning",
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }


class Starter:
    """Starts processes on hosts; ends them with the farm."""

    def __init__(self, stack: ExitStack, network: Network, folder: Path) -> None:
        self._stack, self._network, self._folder = stack, network, folder
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, host: str, *command: str, **environment: str) -> "subprocess.Popen[str]":
        log: IO[str] = self._stack.enter_context((self._folder / f"{host}.log").open("w"))
        process = self._network.start(host, *command, log=log, **environment)
        self._stack.callback(end_group, process)
        self.processes[host] = process
        return process

    def read_logs(self) -> str:
        return "".join(file.read_text() for file in sorted(self._folder.glob("*.log")))


def set_round_trips(network: Network, loss: float) -> None:
    for host, milliseconds in STORE_ROUND_TRIPS_MS.items():
        network.set_link(host, STORE, delay=milliseconds / 2000, loss=loss)
    for host in WORKERS:
        network.set_link(host, UPSTREAM, delay=UPSTREAM_ROUND_TRIP_MS / 2000, loss=loss)
    network.set_link(HERE, STORE, delay=0.0)


def list_simulator_arguments(accounts: int) -> list[str]:
    return ["--host", "0.0.0.0", "--port", str(UPSTREAM_PORT), "--accounts", str(accounts)]


def list_redis_arguments(folder: Path) -> list[str]:
    """A server without a password: only the namespaces reach it."""
    options = {"bind": "0.0.0.0", "protected-mode": "no", "port": str(REDIS_PORT), "dir": str(folder), "save": ""}
    return [text for name, value in {**options, "appendonly": "yes"}.items() for text in (f"--{name}", value)]


def is_up(redis: Redis) -> bool:
    with suppress(RedisError):
        return bool(redis.ping())
    return False


def wait_for(condition: Callable[[], bool], starter: Starter) -> None:
    """Raises RuntimeError with the logs after START_TIMEOUT_SECONDS, or when a process has ended."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not condition():
        ended = [host for host, process in starter.processes.items() if process.poll() is not None]
        if ended or time.monotonic() > deadline:
            raise RuntimeError(f"the farm does not start, ended: {ended}\n{starter.read_logs()[-5000:]}")
        time.sleep(0.2)


def end_group(process: "subprocess.Popen[str]") -> None:
    """Ends a process and its children, by SIGTERM first."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
