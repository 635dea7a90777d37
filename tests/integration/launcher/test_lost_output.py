"""A command does its work to the end although nobody reads its output."""

import os
import select
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gevent import monkey
from redis import Redis

from launcher import lost_output
from launcher.__main__ import farm
from launcher.lost_output import keep_working
from launcher.processes.data_dir import DataDir
from shared import standard_streams
from shared.api_keys.store import ApiKeys
from shared.credentials.store import Credentials
from tests.integration.launcher.conftest import Run
from tests.unread_pipe import open_unread_pipe

PASSPHRASE = "a passphrase of the tests"
RunUnread = Callable[..., int]


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Standard output is a pipe whose reader has left."""
    with open_unread_pipe() as write_end:
        use_as_output(write_end, monkeypatch)
        yield


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Standard output is on a full disk."""
    fd = os.open("/dev/full", os.O_WRONLY)
    use_as_output(fd, monkeypatch)
    yield
    os.close(fd)


def use_as_output(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (standard_streams, lost_output):
        monkeypatch.setattr(module, "STDOUT", fd)
    # gevent's, which the tests have and commands don't, tells of no errors.
    monkeypatch.setattr(select, "poll", monkey.get_original("select", "poll"))


@pytest.fixture
def execute(run: Run, monkeypatch: pytest.MonkeyPatch) -> RunUnread:
    """Runs `./farm` with these arguments on the process's own streams; returns the exit code."""
    monkeypatch.setattr(sys, "stdout", sys.__stdout__)
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)

    def execute_(*arguments: str) -> int:
        with pytest.raises(SystemExit) as end, keep_working():
            farm(arguments, prog_name="farm")
        return int(end.value.code or 0)

    return execute_


@pytest.fixture
def ids(redis: Redis, run: Run) -> tuple[str, ...]:
    return Credentials(redis).import_lines("default", ["one", "two", "three"]).new_ids


def states(redis: Redis) -> list[str]:
    return [record.state for record in Credentials(redis).list(["default"])]


@pytest.mark.usefixtures("unread")
def test_every_change_is_made_and_printing_fails_nothing(execute: RunUnread, redis: Redis, ids: tuple[str, ...]):
    assert execute("credentials", "disable", *ids) == 0
    assert states(redis) == ["disabled"] * 3
    assert execute("credentials", "list") == 0
    assert execute("status") == 1  # it is not running


@pytest.mark.usefixtures("unread", "ids")
@pytest.mark.parametrize("arguments", [("credentials", "export"), ("export", "-", "--passphrase-file", "pass")])
def test_export_that_nobody_takes_fails_and_changes_nothing(
    execute: RunUnread, redis: Redis, tmp_path: Path, arguments: tuple[str, ...]
):
    (tmp_path / "pass").write_text(PASSPHRASE)
    assert execute(*arguments) == 1
    assert [record.exported_at for record in Credentials(redis).list(["default"])] == [0] * 3


@pytest.mark.usefixtures("unread")
def test_secret_that_nobody_has_seen_is_a_failure(execute: RunUnread, redis: Redis):
    assert execute("keys", "create") == 1
    (key,) = ApiKeys(redis).list()
    assert execute("keys", "rotate", key.id) == 1
    assert execute("admin-tokens", "create", "name") == 1


@pytest.mark.usefixtures("full")
def test_full_disk_is_told_at_the_end(
    execute: RunUnread, redis: Redis, ids: tuple[str, ...], capfd: pytest.CaptureFixture[str]
):
    assert execute("credentials", "disable", *ids) == 1
    assert states(redis) == ["disabled"] * 3
    assert capfd.readouterr().err == "farm: standard output can't be written: No space left on device\n"


def test_log_is_followed_as_long_as_somebody_reads(execute: RunUnread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = DataDir(str(tmp_path / "data"))
    data.create()
    data.log_file.write_text("a line\n")
    use_as_output(standard_streams.STDOUT, monkeypatch)
    assert lost_output.has_reader()
    with open_unread_pipe() as write_end:
        use_as_output(write_end, monkeypatch)
        assert not lost_output.has_reader()
        assert execute("logs", "--follow") == 0
