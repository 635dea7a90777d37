"""Runs the farm for `./farm up`: starts everything in order, supervises it, stops it in order.

The start: 1. lock, 2. ports, and Caddy if HTTPS is asked for, 3. Redis, 4. API key and admin token, 5. simulator if no
upstream is configured, 6. the processes of the Procfile, 7. the reverse proxy, 8. ready.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

from redis import Redis

from launcher.processes import redis_server
from launcher.processes.announcement import announce_ready
from launcher.processes.bundled_simulator import (
    SIMULATED_ACCOUNTS,
    SIMULATOR_CLIENT_ID,
    SimulatorProcess,
    has_upstream,
    import_simulated,
    remove_simulated,
    require_simulator_allowed,
)
from launcher.processes.data_dir import DataDir, FarmRecord
from launcher.processes.first_secrets import create_first_secrets
from launcher.processes.https.advice import find_https_warnings
from launcher.processes.https.proxy import ReverseProxy
from launcher.processes.network import check_port, is_up, is_up_on_socket
from launcher.processes.process_group import ProcessGroup
from launcher.processes.restart_settings import describe_restart, find_restart_settings
from launcher.processes.s3_client import ensure_s3_client
from launcher.processes.termination import get_create_time, stop_leftovers
from shared.credentials.unsealing import load_unsealer
from shared.errors import FarmError
from shared.file_limit import raise_file_limit
from shared.network.front_socket import SOCKET_VARIABLE
from shared.observability.pool_status import PoolStatus, read_pool_statuses
from shared.redis_connection.client import check_server, connect
from shared.redis_connection.data_version import stamp_data
from shared.reload_report import write_report
from shared.settings.changes import RESTART_SETTINGS
from shared.settings.file_checks import check_files
from shared.settings.loading import load_settings
from shared.settings.schema import Settings

ROOT = Path(__file__).resolve().parents[2]
#: Seconds within which the farm must be ready.
START_TIMEOUT_SECONDS = 60.0
#: Seconds after which a farm without usable credentials counts as started once its front is up.
NO_CREDENTIAL_GRACE_SECONDS = 3.0


class AlreadyRunning(FarmError):
    """Raised when a farm is already running in this data dir."""


class StartInterrupted(Exception):
    """Raised when a signal to stop arrives during the start."""


def build_environment() -> dict[str, str]:
    """Returns this process's environment, with its python's folder first on PATH."""
    folder = str(Path(sys.executable).parent)
    inherited = {name: value for name, value in os.environ.items() if name != SOCKET_VARIABLE}
    return {**inherited, "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


@dataclass
class Farm:
    """One farm: starting, running or stopping."""

    settings: Settings
    data: DataDir
    print_line: Callable[[str], None]
    processes: ProcessGroup = field(default_factory=ProcessGroup)
    environment: dict[str, str] = field(default_factory=build_environment)
    #: Seconds since the epoch.
    started_at: float = field(default_factory=time.time)
    #: Number of signals to stop so far; set by the signal handler.
    stop_signals: int = 0
    #: Whether farm.toml must be read again; set by the signal handler.
    reload_requested: bool = False
    #: The reverse proxy that serves HTTPS; None without one.
    proxy: ReverseProxy | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._started_with = self.settings

    @property
    def url(self) -> str:
        """The farm's URL: that of the HTTPS endpoint, else the front's as seen from this machine."""
        if self.proxy:
            return self.proxy.url
        host = self.settings.host
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        return f"http://{host}:{self.settings.port}"

    @property
    def redis_url(self) -> str:
        """The configured Redis, else the private one."""
        return self.settings.redis_url or redis_server.build_url(self.data.path)

    def take_over(self) -> None:
        """Takes the lock and stops what a killed farm left behind, by its record. Raises AlreadyRunning."""
        previous = self.data.read_record()
        if not self.data.lock():
            raise AlreadyRunning(f"the farm is already running{f' at {previous.url}' if previous else ''}")
        if previous and (count := stop_leftovers(previous)):
            self.print_line(f"stopped {count} processes of a farm that was killed")

    def start(self) -> None:
        """Starts everything. Raises FarmError or StartInterrupted; call `stop` in any case."""
        self._prepare_endpoint()
        ensure_s3_client(self.settings, self.print_line)
        redis = self._start_redis()
        if not has_upstream(self.settings):
            require_simulator_allowed(self.settings, redis)
        load_unsealer(self.settings).ensure_sealing_key(redis)
        secrets = create_first_secrets(self.settings, redis)
        self._prepare_upstream(redis)
        self.processes.start_procfile(ROOT / "Procfile", self.environment, self.data)
        self._write_record()
        if self.proxy:
            self.processes.add("proxy", self.proxy.start)
            self._write_record()
        self._wait_until_ready(redis)
        announce_ready(self.print_line, self.url, self.proxy, secrets, lambda: bool(self.stop_signals))

    def _prepare_endpoint(self) -> None:
        """Checks that the farm can listen, and prepares the reverse proxy if HTTPS is asked for. Raises FarmError."""
        if not self.settings.has_https:
            check_port(self.settings.host, self.settings.port)
            return
        self.proxy = ReverseProxy(self.settings, self.data.path, self.environment)
        self.proxy.prepare(self.print_line)
        for warning in find_https_warnings(self.settings):
            self.print_line(warning)
        self.environment[SOCKET_VARIABLE] = str(self.proxy.sockets.front)

    def run(self) -> int:
        """Restarts dead processes and reloads on request until a signal to stop arrives; returns the exit code."""
        while not self.stop_signals:
            has_restarted = self.processes.restart_dead(print_warning)
            if self.processes.forget_ended_sessions() or has_restarted:
                self._write_record()
            if self.reload_requested:
                self.reload_requested = False
                self._reload()
            time.sleep(0.1)
        return 0

    def _reload(self) -> None:
        """Makes the processes read farm.toml again, unless it is invalid."""
        try:
            settings = load_settings(self.environment)
            ensure_s3_client(settings, self.print_line)
            check_files(settings)
            restart = describe_restart(find_restart_settings(self._started_with, load_settings(build_environment())))
            settings = replace(settings, **{name: getattr(self.settings, name) for name in RESTART_SETTINGS})
            if self.proxy:
                self.proxy.reload(settings)
        except FarmError as error:
            print_warning(f"not reloaded, the settings are unchanged: {error}")
            write_report(self.data.reload_report("launcher"), str(error))
            return
        if restart:
            print_warning(restart)
        write_report(self.data.reload_report("launcher"), note=restart)
        self.settings = settings
        self.processes.reload()

    def stop(self) -> None:
        """Stops the processes and removes record and lock; a second signal ends the drain."""
        self.processes.stop(self.settings.drain, lambda: self.stop_signals > 1)
        self.data.unlock()

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        """Counts signals to stop: the first drains, the second hurries. SIGUSR1, and SIGHUP without a tty, reload."""
        if signum == signal.SIGUSR1 or (signum == signal.SIGHUP and not sys.stdin.isatty()):
            self.reload_requested = True
        else:
            self.stop_signals += 1

    def _start_redis(self) -> Redis:
        if not self.settings.redis_url:
            self.processes.add("redis", lambda: redis_server.start(self.data.path))
            self._write_record()
        redis = connect(self.redis_url, size=4, timeout=5.0)
        check_server(redis)
        stamp_data(redis)
        self.environment["REDIS_URL"] = self.redis_url
        return redis

    def _prepare_upstream(self, redis: Redis) -> None:
        """Starts the simulator if no upstream is configured; removes its credentials if one is. Raises FarmError."""
        if has_upstream(self.settings):
            remove_simulated(redis)
            return
        simulator = SimulatorProcess(self.environment)
        self.processes.add("simulator", simulator.start)
        self.environment |= {
            "FARM_UPSTREAM_URL": f"{simulator.base_url}/v1",
            "FARM_TOKEN_URL": f"{simulator.base_url}/oauth/token",
            "FARM_ISSUER": simulator.base_url,
            "FARM_CLIENT_ID": SIMULATOR_CLIENT_ID,
            "FARM_SIMULATOR": "yes",
        }
        pool = self.settings.pools[0]
        import_simulated(redis, pool.name, pool.credential_kind)
        self.print_line(
            f"FARM_UPSTREAM_URL is not set, so requests go to the bundled simulator ({SIMULATED_ACCOUNTS} accounts)"
        )

    def _write_record(self) -> None:
        created = {str(pid): get_create_time(pid) for pid in self.processes.pids()}
        orphaned = {str(pid): created for pid, created in self.processes.orphaned_sessions.items()}
        self.data.write_record(FarmRecord(os.getpid(), self.url, self.redis_url, self.started_at, created, orphaned))

    def _wait_until_ready(self, redis: Redis) -> None:
        """Waits for /readyz; without usable credentials, /healthz is enough after a grace period."""
        started = time.monotonic()
        while True:
            if self.stop_signals:
                raise StartInterrupted
            dead = self.processes.find_dead()
            if dead:
                raise FarmError(f"{dead[0]} exited with {dead[1]} before the farm was ready")
            if self._is_up("/readyz"):
                return
            elapsed = time.monotonic() - started
            is_in_grace = elapsed <= NO_CREDENTIAL_GRACE_SECONDS
            if not is_in_grace and not self._has_usable_credential(redis) and self._is_up("/healthz"):
                warnings = [warning for pool in self._read_pools(redis) for warning in pool.warnings]
                self.print_line("; ".join(warnings) or self._describe_import())
                return
            if elapsed > START_TIMEOUT_SECONDS:
                raise FarmError(f"not ready after {START_TIMEOUT_SECONDS:.0f} s")
            time.sleep(0.05)

    def _describe_import(self) -> str:
        """What to do about a farm without credentials, in the browser or here."""
        page = f"{self.url}/admin/accounts/import"
        return f"there is no usable credential yet: add some at {page} or with ./farm credentials import FILE"

    def _is_up(self, path: str) -> bool:
        """Whether the front responds with 200; an HTTPS endpoint with a local CA must serve as well."""
        if not self.proxy:
            return is_up(f"{self.url}{path}")
        has_endpoint = self.settings.https != "internal" or self.proxy.is_serving()
        return has_endpoint and is_up_on_socket(self.proxy.sockets.front, path)

    def _has_usable_credential(self, redis: Redis) -> bool:
        return any(pool.credentials["active"] + pool.credentials["cooling"] for pool in self._read_pools(redis))

    def _read_pools(self, redis: Redis) -> list[PoolStatus]:
        return read_pool_statuses(redis, self.settings.pool_names)


def print_warning(text: str) -> None:
    """Writes a line to standard error: the terminal, or the log of a detached farm."""
    print(f"farm: {text}", file=sys.stderr, flush=True)


def run_farm(settings: Settings, print_line: Callable[[str], None], on_ready: Callable[[], None]) -> int:
    """Runs the farm until a signal stops it; returns the exit code. Raises FarmError when it can't start."""
    farm = Farm(settings, DataDir(settings.data_dir), print_line)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(signum, farm.on_signal)
    raise_file_limit()
    farm.take_over()
    try:
        farm.start()
        on_ready()
        return farm.run()
    except StartInterrupted:
        return 1
    finally:
        farm.stop()
