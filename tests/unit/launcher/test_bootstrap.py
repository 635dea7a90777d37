"""The set-up of .venv; what it runs is replaced, because a real one is made in CI for every run."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher import bootstrap


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout with two lock files and no .venv, and a record of the commands that were run."""
    for lock in (bootstrap.RUNTIME_LOCK, bootstrap.DEVELOPMENT_LOCK):
        (tmp_path / lock).write_text(f"# {lock}\n")
    venv = tmp_path / ".venv"
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "VENV", venv)
    monkeypatch.setattr(bootstrap, "PYTHON", venv / "bin" / "python")
    monkeypatch.setattr(bootstrap, "STAMP_FILE", venv / "farm-lock")
    return tmp_path


@pytest.fixture
def commands(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were run; each leaves a .venv as the real one would."""
    found: list[list[str]] = []

    def run(command: list[str]) -> None:
        found.append(command)
        (root / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
        (root / ".venv" / "bin" / "python").touch()

    monkeypatch.setattr(bootstrap, "run_command", run)
    return found


def test_the_first_use_makes_it_and_the_second_finds_it(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bootstrap.shutil, "which", lambda _: None)
    bootstrap.ensure_venv(bootstrap.RUNTIME_LOCK)
    assert [command[2] for command in commands] == ["venv", "pip"]
    assert "--require-hashes" in commands[1]
    bootstrap.ensure_venv(bootstrap.RUNTIME_LOCK)
    assert len(commands) == 2


def test_uv_is_used_where_there_is_one(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bootstrap.shutil, "which", lambda _: "/bin/uv")
    bootstrap.ensure_venv(bootstrap.DEVELOPMENT_LOCK)
    assert [command[:2] for command in commands] == [["/bin/uv", "venv"], ["/bin/uv", "pip"]]


def test_the_development_set_is_good_for_everything_and_not_the_other_way_round(commands: list[list[str]]):
    bootstrap.ensure_venv(bootstrap.DEVELOPMENT_LOCK)
    assert bootstrap.is_current(bootstrap.RUNTIME_LOCK)
    commands.clear()
    bootstrap.build_venv(bootstrap.RUNTIME_LOCK)
    assert not bootstrap.is_current(bootstrap.DEVELOPMENT_LOCK)


def test_a_changed_lock_file_makes_it_anew(root: Path, commands: list[list[str]]):
    bootstrap.ensure_venv(bootstrap.RUNTIME_LOCK)
    commands.clear()
    (root / bootstrap.RUNTIME_LOCK).write_text("# other\n")
    bootstrap.ensure_venv(bootstrap.RUNTIME_LOCK)
    assert commands


def test_a_python_without_ensurepip_lends_its_own_pip(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch):
    without = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *_, **__: without)
    bootstrap.build_venv_with_pip(bootstrap.RUNTIME_LOCK)
    assert "--without-pip" in commands[0]
    assert commands[1][:4] == [sys.executable, "-m", "pip", "--python"]


def test_a_set_up_that_fails_is_one_line_and_exit_code_1(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(
        bootstrap, "build_venv", lambda _: bootstrap.run_command([sys.executable, "-c", "exit('no network')"])
    )
    monkeypatch.setattr(sys, "argv", ["farm", "up"])
    with pytest.raises(SystemExit) as ended:
        bootstrap.main()
    assert ended.value.code == 1
    printed = capsys.readouterr().err
    assert "no network" in printed
    assert "the set-up failed" in printed


def test_it_becomes_the_launcher_in_the_farms_folder(root: Path, commands: list[list[str]], monkeypatch):
    became = []
    monkeypatch.chdir(root)
    monkeypatch.setattr(bootstrap.os, "execve", lambda *given: became.append(given))
    monkeypatch.setattr(sys, "argv", ["farm", "test", "-x"])
    bootstrap.main()
    _, arguments, environment = became[0]
    assert arguments[1:] == ["-m", "launcher", "test", "-x"]
    assert environment["CALLED_FROM"] == str(root)
    assert environment["PATH"].startswith(str(root / ".venv" / "bin"))
    assert bootstrap.is_current(bootstrap.DEVELOPMENT_LOCK)
