"""The farm as a service of systemd: readiness, and no secret in the journal."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from launcher.processes.first_secrets import create_first_secrets
from launcher.processes.service_manager import ServiceManager, is_output_kept
from shared.api_keys.admin_tokens import AdminTokens
from shared.api_keys.store import ApiKeys
from shared.settings.schema import Settings


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The service manager's end, and its address as the environment has it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@farm-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(name.replace("@", "\0"))
        server.settimeout(30)
        yield server, name


def test_service_manager_is_told_when_the_farm_serves(manager: tuple[socket.socket, str]):
    server, address = manager
    environ = {"NOTIFY_SOCKET": address, "PATH": "/bin"}
    service_manager = ServiceManager(environ)
    assert environ == {"PATH": "/bin"}, "gunicorn would report for itself"
    service_manager.report_ready()
    assert server.recv(100) == b"READY=1"


def test_service_manager_that_is_gone_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    ServiceManager({}).report_ready()
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).report_ready()
    assert capsys.readouterr().err.startswith("farm: can't tell the service manager")


@contextmanager
def journal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Standard output goes to a file that is the journal, by what the environment says."""
    with (folder / "journal").open("w") as stream, monkeypatch.context() as patch:
        status = os.fstat(stream.fileno())
        patch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        patch.setattr(sys, "stdout", stream)
        yield


def test_first_start_writes_no_secret_to_the_journal(redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with journal(tmp_path, monkeypatch):
        lines = create_first_secrets(Settings(), redis)
    assert [line.partition(": ")[0] for line in lines] == ["there is no API key yet", "there is no admin token yet"]
    assert ApiKeys(redis).list() == []
    assert AdminTokens(redis).list() == []


def test_configured_secrets_are_stored_all_the_same(redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = Settings(api_key="sk-configured", admin_token="configured-token")
    with journal(tmp_path, monkeypatch):
        assert create_first_secrets(settings, redis) == []
    assert (len(ApiKeys(redis).list()), len(AdminTokens(redis).list())) == (1, 1)


def test_first_start_on_a_terminal_shows_the_secrets(redis: Redis, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    assert not is_output_kept()
    lines = create_first_secrets(Settings(), redis)
    assert [line.partition(" (shown once): ")[0] for line in lines] == ["API key", "admin token"]
