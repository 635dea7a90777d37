"""A server is only started on data that it can read."""

from pathlib import Path

import pytest

from launcher.processes import redis_server
from launcher.processes.store_version import ServerLine, choose_program, read_line_of, read_writer, write_writer
from shared.errors import StoreUnavailable

REDIS_6, REDIS_7, REDIS_8 = ServerLine("redis", 6, 2), ServerLine("redis", 7, 2), ServerLine("redis", 8, 0)
VALKEY_8, VALKEY_9 = ServerLine("valkey", 8, 0), ServerLine("valkey", 9, 1)


def make_program(folder: Path, output: str) -> str:
    folder.mkdir()
    program = folder / "redis-server"
    program.write_text(f"#!/bin/sh\necho '{output}'\n")
    program.chmod(0o755)
    return str(program)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture
def redis_6(tmp_path: Path) -> str:
    return make_program(tmp_path / "6", "Redis server v=6.2.14 sha=40305114:0 malloc=libc bits=64")


@pytest.fixture
def redis_7(tmp_path: Path) -> str:
    return make_program(tmp_path / "7", "Redis server v=7.2.4 sha=00000000:0 malloc=jemalloc-5.3.0")


@pytest.fixture
def valkey_9(tmp_path: Path) -> str:
    return make_program(tmp_path / "9", "Valkey server v=9.1.2 sha=00000000:0 malloc=libc bits=64")


@pytest.mark.parametrize(
    ("reader", "writer", "can_read"),
    [
        (REDIS_6, REDIS_6, True),
        (REDIS_6, REDIS_7, False),
        (REDIS_7, REDIS_6, True),
        (REDIS_7, REDIS_8, False),
        (REDIS_8, REDIS_7, True),
        (VALKEY_8, REDIS_7, True),
        (VALKEY_9, REDIS_8, False),
        (VALKEY_8, VALKEY_9, False),
        (REDIS_8, VALKEY_8, False),
        (REDIS_6, VALKEY_8, False),
    ],
)
def test_lines_read_older_lines_and_common_ancestors(reader: ServerLine, writer: ServerLine, can_read: bool):
    assert reader.can_read(writer) is can_read


def test_line_is_read_from_the_program(redis_6: str, valkey_9: str, tmp_path: Path):
    assert (read_line_of(redis_6), read_line_of(valkey_9)) == (REDIS_6, VALKEY_9)
    assert read_line_of(make_program(tmp_path / "odd", "hello")) is None
    assert read_line_of("/nowhere/redis-server") is None


def test_program_that_cannot_read_the_data_is_refused(home: Path, redis_6: str, redis_7: str, valkey_9: str):
    assert choose_program(home, [redis_7, redis_6]) == (redis_7, REDIS_7)
    write_writer(home, VALKEY_9)
    for programs in ([redis_6], [redis_7], [redis_7, redis_6]):
        with pytest.raises(StoreUnavailable, match=r"written by valkey 9\.1"):
            choose_program(home, programs)
    assert choose_program(home, [redis_7, valkey_9]) == (valkey_9, VALKEY_9)


def test_first_program_that_reads_the_data_is_chosen(home: Path, redis_6: str, redis_7: str, valkey_9: str):
    write_writer(home, REDIS_6)
    assert choose_program(home, [valkey_9, redis_6]) == (valkey_9, VALKEY_9)
    write_writer(home, REDIS_8)
    redis_8 = make_program(home / "8", "Redis server v=8.0.2 sha=00000000:0 malloc=jemalloc-5.3.0")
    assert choose_program(home, [valkey_9, redis_7, redis_8]) == (redis_8, REDIS_8)


def test_program_that_does_not_run_here_comes_last(home: Path, redis_7: str):
    assert choose_program(home, ["/nowhere/valkey-server", redis_7]) == (redis_7, REDIS_7)
    assert choose_program(home, ["/nowhere/valkey-server"]) == ("/nowhere/valkey-server", None)


def test_data_of_an_older_farm_is_judged_by_its_files(home: Path, redis_6: str, redis_7: str):
    (home / "appendonly.aof").touch()
    assert choose_program(home, [redis_6]) == (redis_6, REDIS_6)
    (home / "appendonlydir").mkdir()
    with pytest.raises(StoreUnavailable, match=r"written by redis 7\.0"):
        choose_program(home, [redis_6])
    assert choose_program(home, [redis_6, redis_7]) == (redis_7, REDIS_7)


def test_files_prove_a_record_wrong(home: Path, redis_6: str):
    """Redis 7 was killed after it had converted the data and before that was recorded."""
    write_writer(home, REDIS_6)
    (home / "appendonlydir").mkdir()
    with pytest.raises(StoreUnavailable):
        choose_program(home, [redis_6])


def test_started_server_is_recorded(tmp_path: Path):
    process = redis_server.start(tmp_path)
    process.terminate()
    process.wait()
    assert read_writer(tmp_path / "redis") == read_line_of(redis_server.find_programs()[0])
