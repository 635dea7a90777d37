"""The set-up of .venv, with the commands replaced; CI builds a real one in every run."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher import bootstrap
from tests.unread_pipe import open_unread_pipe


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout with two lock files and no .venv."""
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
    """Records the commands that are run; each leaves a .venv as the real command would."""
    recorded: list[list[str]] = []

    def run(command: list[str]) -> None:
        recorded.append(command)
        (root / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
        (root / ".venv" / "bin" / "python").touch()

    monkeypatch.setattr(bootstrap, "run_command", run)
    return recorded


def test_first_use_builds_it_and_the_second_reuses_it(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bootstrap.shutil, "which", lambda _: None)
    bootstrap.ensure_venv(bootstrap.RUNTIME_LOCK)
    assert [command[2] for command in commands] == ["venv", "pip"]
    assert "--require-hashes" in commands[1]
    bootstrap.ensure_venv(bootstrap.RUNTIME_LOCK)
    assert len(commands) == 2


def test_uv_is_used_if_installed(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bootstrap.shutil, "which", lambda _: "/bin/uv")
    bootstrap.ensure_venv(bootstrap.DEVELOPMENT_LOCK)
    assert [command[:2] for command in commands] == [["/bin/uv", "venv"], ["/bin/uv", "pip"]]


def test_development_set_serves_all_commands_and_the_runtime_set_does_not(commands: list[list[str]]):
    bootstrap.ensure_venv(bootstrap.DEVELOPMENT_LOCK)
    assert bootstrap.is_current(bootstrap.RUNTIME_LOCK)
    commands.clear()
    bootstrap.build_venv(bootstrap.RUNTIME_LOCK)
    assert not bootstrap.is_current(bootstrap.DEVELOPMENT_LOCK)


def test_changed_lock_file_rebuilds_it(root: Path, commands: list[list[str]]):
    bootstrap.ensure_venv(bootstrap.RUNTIME_LOCK)
    commands.clear()
    (root / bootstrap.RUNTIME_LOCK).write_text("# other\n")
    bootstrap.ensure_venv(bootstrap.RUNTIME_LOCK)
    assert commands


def test_environment_behind_a_link_is_left_alone(root: Path, commands: list[list[str]]):
    shared = root / "shared"
    shared.mkdir()
    (root / ".venv").symlink_to(shared)
    with pytest.raises(SystemExit, match="remove the link"):
        bootstrap.ensure_venv(bootstrap.RUNTIME_LOCK)
    assert commands == []


def test_python_without_ensurepip_uses_its_own_pip(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch):
    failed = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *_, **__: failed)
    bootstrap.build_venv_with_pip(bootstrap.RUNTIME_LOCK)
    assert "--without-pip" in commands[0]
    assert commands[1][:4] == [sys.executable, "-m", "pip", "--python"]


def test_set_up_needs_nobody_who_reads_of_it(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch):
    with open_unread_pipe() as write_end:
        monkeypatch.setattr(sys, "stderr", os.fdopen(write_end, "w", closefd=False))
        bootstrap.ensure_venv(bootstrap.RUNTIME_LOCK)
    assert bootstrap.is_current(bootstrap.RUNTIME_LOCK)


def test_failed_set_up_is_one_line_and_exit_code_1(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(
        bootstrap, "build_venv", lambda _: bootstrap.run_command([sys.executable, "-c", "exit('no network')"])
    )
    monkeypatch.setattr(sys, "argv", ["farm", "up"])
    with pytest.raises(SystemExit) as exited:
        bootstrap.main()
    assert exited.value.code == 1
    printed = capsys.readouterr().err
    assert "no network" in printed
    assert "the set-up failed" in printed


def test_it_execs_the_launcher_in_the_farms_folder(root: Path, commands: list[list[str]], monkeypatch):
    calls = []
    monkeypatch.chdir(root)
    monkeypatch.setattr(bootstrap.os, "execve", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(sys, "argv", ["farm", "test", "-x"])
    monkeypatch.setattr(sys, "stdout", None)  # as with `>&-`
    bootstrap.main()
    print("dropped", flush=True)
    assert os.get_inheritable(sys.stdout.fileno())
    os.close(sys.stdout.fileno())
    _, arguments, environment = calls[0]
    assert arguments[1:] == ["-m", "launcher", "test", "-x"]
    assert environment["CALLED_FROM"] == str(root)
    assert environment["PATH"].startswith(str(root / ".venv" / "bin"))
    assert bootstrap.is_current(bootstrap.DEVELOPMENT_LOCK)
