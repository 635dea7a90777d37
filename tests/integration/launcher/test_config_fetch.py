"""`./farm config check --fetch` installs what the settings ask for, before a service that may not write starts."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from launcher.commands.config import check
from launcher.processes.https import program


def run_check(*arguments: str, https: str) -> tuple[int, str]:
    result = CliRunner().invoke(check, arguments, env={"FARM_HTTPS": https, "FARM_CONFIG": "/dev/null"})
    return result.exit_code, result.output


@pytest.fixture
def broken_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock file that pip refuses before it looks anywhere: it has no hash."""
    lock = tmp_path / "https.lock"
    lock.write_text(f"{program.PACKAGE}==0.0.0\n")
    monkeypatch.setattr(program, "LOCK_FILE", lock)


@pytest.mark.usefixtures("broken_lock")
def test_caddy_is_fetched_only_when_https_and_fetch_are_asked_for():
    assert run_check(https="internal")[0] == 0
    assert run_check("--fetch", https="off")[0] == 0
    code, output = run_check("--fetch", https="internal")
    assert code == 1
    assert "can't install Caddy" in output
