"""`./farm rekey`: changes the key that seals the credentials."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click
from redis import Redis

from launcher.output import exit_on_error, print_line
from launcher.processes import redis_server
from launcher.processes.data_dir import DataDir
from launcher.processes.termination import stop_leftovers
from launcher.store import record_change
from shared.credentials.rekeying import is_rekeyed, require_stopped, reseal_all
from shared.credentials.unsealing import KEY_FILE, MIN_KEY_LENGTH, Unsealer
from shared.errors import FarmError
from shared.redis_connection.client import check_server, connect
from shared.redis_connection.data_version import stamp_data
from shared.settings.loading import load_settings
from shared.settings.schema import Settings

#: The key in the data dir while it is being introduced, and the one before, kept until an operator deletes it.
NEW_KEY_FILE, OLD_KEY_FILE = "secret.key.new", "secret.key.old"


@click.command()
@click.option(
    "--new-key-file",
    type=click.File(),
    help="A file with the new key ('-' for standard input), if FARM_SECRET_KEY is set. Without it a key is made.",
)
@exit_on_error
def rekey(new_key_file: IO[str] | None) -> None:
    """Seal all credentials with a new FARM_SECRET_KEY, while the farm is stopped.

    If it is interrupted, run it again with the same arguments: it goes on where it was.
    """
    settings = load_settings()
    data = DataDir(settings.data_dir)
    if bool(settings.secret_key) != bool(new_key_file):
        raise FarmError(
            "FARM_SECRET_KEY is set: give the new key with --new-key-file, and change the setting afterwards"
            if settings.secret_key
            else "this command makes the new key in the data dir: --new-key-file is for farms that set FARM_SECRET_KEY"
        )
    with open_stopped_store(settings, data) as redis:
        require_stopped(redis)
        if new_key_file:
            count = reseal_all(redis, [Unsealer(settings.secret_key)], Unsealer(read_new_key(new_key_file)))
            following = "now set FARM_SECRET_KEY to the new key, on every host"
        else:
            count = rekey_data_dir(redis, data.path)
            following = f"the new key is in {data.path / KEY_FILE}; delete {OLD_KEY_FILE} once the farm has started"
        record_change(redis, "farm.rekey", "", {"credentials": count})
    print_line(f"{count} credentials are sealed with the new key; {following}")


@contextmanager
def open_stopped_store(settings: Settings, data: DataDir) -> Iterator[Redis]:
    """Locks the data dir, and connects to REDIS_URL or a private Redis started for this. Raises FarmError."""
    if not data.lock():
        raise FarmError("the farm is running here: stop it with `./farm stop` first")
    if previous := data.read_record():
        stop_leftovers(previous)
    server = None
    try:
        if not settings.redis_url:
            server = redis_server.start(data.path)
        redis = connect(settings.redis_url or redis_server.build_url(data.path))
        check_server(redis)
        stamp_data(redis)
        yield redis
    finally:
        if server:
            server.terminate()
            server.wait()
        data.unlock()


def read_new_key(file: IO[str]) -> str:
    """Raises FarmError when the key is too short."""
    key = file.read().strip()
    if len(key) < MIN_KEY_LENGTH:
        raise FarmError(f"the new key needs {MIN_KEY_LENGTH} characters: `openssl rand -base64 32` makes one")
    return key


def rekey_data_dir(redis: Redis, data: Path) -> int:
    """Replaces the key in the data dir; keeps the old one, because Redis may lose its last second."""
    present, new, old = (data / name for name in (KEY_FILE, NEW_KEY_FILE, OLD_KEY_FILE))
    if not present.exists() and not new.exists():
        raise FarmError(f"there is no {present}: this farm has sealed nothing with it yet")
    if not new.exists():
        write_key(new, secrets.token_urlsafe(32))
    unsealer = Unsealer(new.read_text().strip())
    known = [Unsealer(file.read_text().strip()) for file in (present, old) if file.exists()]
    count = reseal_all(redis, known, unsealer)
    if not is_rekeyed(redis, unsealer):
        raise FarmError("the key in Redis has changed meanwhile; run the command again")
    if present.exists():
        present.replace(old)
    new.replace(present)
    return count


def write_key(file: Path, key: str) -> None:
    """Writes a file that only its owner can read, all of it or none."""
    draft = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    draft.touch(mode=0o600, exist_ok=False)
    draft.write_text(key + "\n")
    draft.replace(file)
