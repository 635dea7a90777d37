"""Starts a farm for a measurement; reads its status, its metrics and the cost of its processes."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from redis import Redis

from bench.histograms import Buckets, read_buckets
from bench.processes import read_command_line, read_name, sum_cpu_seconds, sum_memory
from bench.simulator import ROOT, SimulatorProcess, run_simulator
from launcher.processes import redis_server
from launcher.processes.data_dir import DataDir, FarmRecord
from shared.observability.pool_status import read_pool_statuses
from shared.redis_connection.client import connect
from workers.refresher.process import PROCESS_NAME

API_KEY = "sk-bench-0123456789abcdef"
#: Part of a process's command line -> its kind in results.
PROCESS_KINDS = {
    "web.gunicorn_conf": "front",
    "-m workers": "workers",
    "valkey-server": "redis",
    "redis-server": "redis",
    "caddy run": "proxy",
    "-m launcher": "launcher",
}


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class MeasuredFarm:
    """A running farm with its simulator and its Redis."""

    port: int
    upstream: SimulatorProcess
    environment: dict[str, str]
    redis: "KillableRedis"
    #: Seconds from the command until the farm was ready.
    start_seconds: float = 0.0
    _launcher: psutil.Process | None = None

    def run_command(self, *arguments: str) -> str:
        """Runs `./farm …` and returns its output. Raises RuntimeError when it fails."""
        completed = subprocess.run(
            [sys.executable, "-m", "launcher", *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if completed.returncode:
            raise RuntimeError(completed.stdout + completed.stderr)
        return completed.stdout

    @property
    def record(self) -> FarmRecord:
        """What `./farm up` keeps of the running farm. Raises RuntimeError when there is none."""
        record = DataDir(self.environment["FARM_DATA_DIR"]).read_record()
        if record is None:
            raise RuntimeError("the farm is not running")
        return record

    def read_pool(self) -> dict[str, Any]:
        """The pool as `./farm status --json` shows it, without the half second of CPU that the command takes."""
        with connect(self.record.redis_url, size=1) as redis:
            (status,) = read_pool_statuses(redis, ["default"])
        return status.to_dict()

    def read_metric(self, name: str, label: str = "") -> float:
        """The sum of a metric's samples, only of those with the label if one is given."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name) and label in line)

    def read_histogram(self, name: str) -> Buckets:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as response:
            return read_buckets(response.read().decode(), name)

    def count_jobs_of_dead_fronts(self) -> int:
        """Jobs in Redis whose front is not subscribed to its channel."""
        redis = self.redis.client
        jobs = Counter(
            front for key in redis.scan_iter("rq:job:*", count=1000) if (front := redis.hget(key, "farm_front"))
        )
        ids = [front.decode().rpartition(":")[2] for front in jobs]
        subscribers = redis.pubsub_numsub(*(f"farm:front:{front_id}" for front_id in ids)) if ids else []
        return sum(jobs[front] for front, (_, count) in zip(jobs, subscribers, strict=True) if not count)

    def read_log(self) -> str:
        return (Path(self.environment["FARM_DATA_DIR"]) / "farm.log").read_text()

    def list_children(self, module: str) -> list[psutil.Process]:
        """The worker processes (`-m workers`) or fronts (`gunicorn`)."""
        return [child for child in self.find_master(module).children() if read_name(child) not in ("", PROCESS_NAME)]

    def find_refresher(self) -> psutil.Process | None:
        """The token refresher; None while it is being restarted."""
        children = self.find_master("-m workers").children()
        return next((child for child in children if read_name(child) == PROCESS_NAME), None)

    def find_launcher(self) -> psutil.Process:
        """The process of `./farm up`."""
        if self._launcher is None or not self._launcher.is_running():
            self._launcher = psutil.Process(self.record.pid)
        return self._launcher

    def find_master(self, module: str) -> psutil.Process:
        """`python -m workers`, or gunicorn's master."""
        children = self.find_launcher().children()
        return next(process for process in children if module in read_command_line(process))

    def list_processes(self) -> Iterator[tuple[str, psutil.Process]]:
        """Every process of the farm, with its kind."""
        launcher = self.find_launcher()
        for process in (launcher, *launcher.children(recursive=True), psutil.Process(self.redis.process.pid)):
            line = read_command_line(process)
            yield next((kind for part, kind in PROCESS_KINDS.items() if part in line), "other"), process

    def measure_cpu_seconds(self) -> dict[str, float]:
        """CPU time so far, by kind of process."""
        return sum_cpu_seconds(self.list_processes())

    def measure_memory(self) -> dict[str, float]:
        """Proportional set size in MB, by kind of process."""
        return sum_memory(self.list_processes())

    def wait_for_workers(self, count: int, within: float = 60.0) -> None:
        """Waits until there are `count` workers. Raises RuntimeError after `within` seconds."""
        deadline = time.monotonic() + within
        while sum(self.read_pool()["workers"].values()) != count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"not {count} workers after {within} s: {self.read_pool()}")
            time.sleep(0.2)


class KillableRedis:
    """A Redis server of the measurement, with the settings of the farm's private one."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self.process = redis_server.start(data)
        self.url = redis_server.build_url(data)
        self.client = Redis.from_url(self.url)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def start(self) -> None:
        """Starts it again on the same data."""
        self.process = redis_server.start(self._data)


@contextmanager
def run_farm(
    accounts: int, *arguments: str, prepare: Callable[["MeasuredFarm"], None] | None = None, **settings: str
) -> Iterator[MeasuredFarm]:
    """Runs a farm and its simulator; the arguments are the simulator's, the settings the farm's.

    `prepare` is called before the farm starts, to change the simulator. An empty REDIS_URL makes the farm start its
    own Redis.
    """
    with run_simulator(accounts, *arguments) as upstream, run_farm_on(upstream, prepare, **settings) as farm:
        yield farm


@contextmanager
def run_farm_on(
    upstream: SimulatorProcess, prepare: Callable[["MeasuredFarm"], None] | None = None, **settings: str
) -> Iterator[MeasuredFarm]:
    """Runs a farm on this upstream, once all its workers are there; stops it and deletes its data on exit."""
    data = Path(tempfile.mkdtemp(prefix="farm-bench-"))
    (data / "tokens").write_text("\n".join(upstream.refresh_tokens()))
    port = find_free_port()
    redis = KillableRedis(data / "store")
    environment = {
        **os.environ,
        "PORT": str(port),
        "REDIS_URL": redis.url,
        "FARM_DATA_DIR": str(data / "data"),
        "FARM_API_KEY": API_KEY,
        "FARM_UPSTREAM_URL": f"{upstream.url}/v1",
        "FARM_TOKEN_URL": f"{upstream.url}/oauth/token",
        "FARM_REFRESH_TOKENS_FILE": str(data / "tokens"),
        "FARM_LOG_LEVEL": "warning",
        "FARM_CA_BUNDLE": upstream.certificate,
        **settings,
    }
    farm = MeasuredFarm(port, upstream, environment, redis)
    try:
        if prepare:
            prepare(farm)
        started = time.perf_counter()
        farm.run_command("up", "--detach")
        farm.start_seconds = time.perf_counter() - started
        farm.wait_for_workers(upstream.accounts - upstream.read_counters().get("dead_accounts", 0))
        yield farm
    finally:
        farm.run_command("stop")
        redis.process.terminate()
        redis.process.wait()
        shutil.rmtree(data, ignore_errors=True)
