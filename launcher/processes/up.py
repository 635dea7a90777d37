"""`./farm up`: starts everything in order, says when it is ready, and stops everything in order.

1. lock, 2. port, 3. Redis, 4. keys and tokens, 5. simulator if no upstream is configured, 6. the Procfile, 7. ready.
"""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from redis import Redis

from launcher.processes import redis_server
from launcher.processes.data_dir import DataDir, FarmRecord, get_create_time, stop_leftovers
from launcher.processes.network import check_port, is_up
from launcher.processes.process_group import ProcessGroup, start_in_session
from shared.api_keys.admin_tokens import AdminTokens
from shared.api_keys.store import ApiKeys
from shared.credentials.store import Credentials
from shared.credentials.unsealing import load_unsealer
from shared.errors import FarmError
from shared.observability.pool_status import read_pool_statuses
from shared.redis_connection.client import check_server, connect
from shared.settings.schema import Settings
from simulator.accounts import Accounts

ROOT = Path(__file__).resolve().parents[2]
#: Accounts of the simulator in a farm without configuration.
SIMULATED_ACCOUNTS = 20
SIMULATOR_LABEL = "simulator"
SIMULATOR_OPTIONS = ("--delay", "0.2", "--chunks", "16", "--chunk-delay", "0.04", "--rotate")
START_TIMEOUT_SECONDS = 60.0


class AlreadyRunning(FarmError):
    """Raised when this farm runs already."""


class StartInterrupted(Exception):
    """Raised when the start is broken off by a signal."""


def build_environment() -> dict[str, str]:
    """This process's environment, with the programs of its python first on PATH."""
    programs = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


@dataclass
class Farm:
    """One farm on its way up, up, or on its way down."""

    settings: Settings
    data: DataDir
    print_line: Callable[[str], None]
    processes: ProcessGroup = field(default_factory=ProcessGroup)
    environment: dict[str, str] = field(default_factory=build_environment)
    #: How often a signal to stop has come.
    stop_signals: int = 0
    #: Whether farm.toml is to be read again.
    reload_requested: bool = False

    @property
    def url(self) -> str:
        """The front's URL, as a client on this machine writes it."""
        host = self.settings.host
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        return f"http://{host}:{self.settings.port}"

    def start(self) -> None:
        """Starts everything. Raises FarmError; whatever was started is stopped again by `stop`."""
        check_port(self.settings.host, self.settings.port)
        redis = self._start_redis()
        load_unsealer(self.settings).claim(redis)
        secrets = self._create_secrets(redis)
        self._prepare_upstream(redis)
        self.processes.start_procfile(ROOT / "Procfile", self.environment)
        self._write_record()
        self._wait_until_ready(redis)
        self._announce(secrets)

    def run(self) -> int:
        """Waits for a signal to stop, starting again what dies; returns the exit code."""
        while not self.stop_signals:
            if self.processes.restart_dead(print_warning):
                self._write_record()
            if self.reload_requested:
                self.reload_requested = False
                self.processes.reload()
            time.sleep(0.1)
        return 0

    def stop(self) -> None:
        """Ends what runs and leaves no lock behind."""
        self.processes.stop(hurry=self.stop_signals > 1)
        self.data.unlock()

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        """The first signal drains; the second hurries. SIGUSR1, and SIGHUP without a terminal, mean a reload."""
        if signum == signal.SIGUSR1 or (signum == signal.SIGHUP and not sys.stdin.isatty()):
            self.reload_requested = True
        else:
            self.stop_signals += 1

    # The steps

    def take_over(self) -> None:
        """The lock is the truth; the record of a farm that was killed names what it left. Raises Already."""
        before = self.data.read_record()
        if not self.data.lock():
            raise AlreadyRunning(f"the farm runs already{f' at {before.url}' if before else ''}")
        if before and (ended := stop_leftovers(before)):
            self.print_line(f"ended {ended} processes of a farm that was killed")

    def _start_redis(self) -> Redis:
        if not self.settings.redis_url:
            self.processes.add("redis", lambda: redis_server.start(self.data.path))
            self._write_record()
        redis = connect(self.redis_url, size=4, timeout=5.0)
        check_server(redis)
        self.environment["REDIS_URL"] = self.redis_url
        return redis

    @property
    def redis_url(self) -> str:
        """The configured Redis, else the private one."""
        return self.settings.redis_url or redis_server.build_url(self.data.path)

    def _create_secrets(self, redis: Redis) -> list[str]:
        """Lines with what is shown once: a first API key, a first admin token."""
        lines = []
        api_keys = ApiKeys(redis)
        if self.settings.api_key:
            api_keys.create_if_missing(self.settings.api_key, "FARM_API_KEY")
        elif not api_keys.list():
            lines.append(f"API key (shown once): {api_keys.create('first key')[0]}")
        made = AdminTokens(redis).ensure_first(self.settings.admin_token)
        if made:
            lines.append(f"admin token (shown once): {made}")
        return lines

    def _prepare_upstream(self, redis: Redis) -> None:
        """Starts the simulator when no upstream is configured; clears its accounts away when one is."""
        credentials = Credentials(redis)
        pools = self.settings.pool_names
        if any(pool.upstream_url for pool in self.settings.pools):
            simulated = [one for one in credentials.list(pools) if one.label == SIMULATOR_LABEL]
            for one in simulated:
                credentials.remove(one.pool, one.id)
            return
        base = self._start_simulator()
        self.environment |= {"FARM_UPSTREAM_URL": f"{base}/v1", "FARM_TOKEN_URL": f"{base}/oauth/token"}
        credentials.import_lines(pools[0], Accounts(SIMULATED_ACCOUNTS).first_refresh_tokens(), SIMULATOR_LABEL)
        self.print_line(
            f"no FARM_UPSTREAM_URL is set, so requests go to the bundled simulator ({SIMULATED_ACCOUNTS} accounts)"
        )

    def _start_simulator(self) -> str:
        """Starts the simulator on a free port; returns its base URL."""
        base = ""

        def start() -> "subprocess.Popen[bytes]":
            nonlocal base
            port = base.rpartition(":")[2] or "0"
            command = [
                sys.executable,
                "-m",
                "simulator",
                "--port",
                port,
                "--accounts",
                str(SIMULATED_ACCOUNTS),
                *SIMULATOR_OPTIONS,
            ]
            process = start_in_session(command, self.environment, stdout=subprocess.PIPE)
            line = process.stdout.readline().decode() if process.stdout else ""
            base = line.strip().rpartition(" ")[2]
            return process

        self.processes.add("simulator", start)
        if "http://" not in base:
            raise FarmError("the simulator does not start")
        return base

    def _write_record(self) -> None:
        created = {str(pid): get_create_time(pid) for pid in self.processes.pids()}
        self.data.write_record(FarmRecord(os.getpid(), self.url, self.redis_url, time.time(), created))

    def _wait_until_ready(self, redis: Redis) -> None:
        """Ready when /readyz says so; a farm without credentials is up as soon as its front answers."""
        names = self.settings.pool_names
        until = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            if self.stop_signals:
                raise StartInterrupted
            died = self.processes.find_dead()
            if died:
                raise FarmError(f"{died[0]} ended with {died[1]} before the farm was ready")
            if is_up(f"{self.url}/readyz"):
                return
            usable = any(
                pool.credentials["active"] + pool.credentials["cooling"] for pool in read_pool_statuses(redis, names)
            )
            if not usable and is_up(f"{self.url}/healthz") and time.monotonic() > until - START_TIMEOUT_SECONDS + 3:
                self.print_line("there is no usable credential yet: ./farm credentials import FILE")
                return
            if time.monotonic() > until:
                raise FarmError(f"not ready after {START_TIMEOUT_SECONDS:.0f} s")
            time.sleep(0.05)

    def _announce(self, secrets: list[str]) -> None:
        known = next((line.rpartition(" ")[2] for line in secrets if line.startswith("API key")), None)
        shown = known or "$FARM_API_KEY"
        self.print_line(f"ready: {self.url}/v1")
        for line in secrets:
            self.print_line(line)
        self.print_line(f"console: {self.url}/admin/")
        body = '{"model":"sim-translate","stream":true,"messages":[{"role":"user","content":"Hello, farm!"}]}'
        header = f'"Authorization: Bearer {shown}"'
        self.print_line(
            f"try: curl -N {self.url}/v1/chat/completions -H {header} -H 'Content-Type: application/json' -d '{body}'"
        )


def print_warning(text: str) -> None:
    """A line for the operator, on the terminal or in the log."""
    print(f"farm: {text}", file=sys.stderr, flush=True)


def raise_file_limit() -> None:
    """The children inherit it; a thousand workers need thousands of files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run_farm(settings: Settings, say: Callable[[str], None], ready: Callable[[], None]) -> int:
    """Runs the farm until it is told to stop; returns the exit code. Raises FarmError when it can't start."""
    farm = Farm(settings, DataDir(settings.data_dir), say)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(signum, farm.on_signal)
    raise_file_limit()
    farm.take_over()
    try:
        farm.start()
        ready()
        return farm.run()
    except StartInterrupted:
        return 1
    finally:
        farm.stop()
