"""Records which server wrote the private Redis's data, so that one that can't read it is not started on it.

Redis 7 and newer, and Valkey, keep their append-only files in `appendonlydir/`, Redis 6 in `appendonly.aof`. Newer ones
take the older file over, but Redis 6 would start empty beside the data of Redis 7, without a word.
"""

import json
import re
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from shared.errors import StoreUnavailable

RECORD_FILE = "server.json"
#: The last line of Redis before Valkey was forked from it.
LAST_COMMON_VERSION = (7, 2)
VERSION_TIMEOUT_SECONDS = 10


@dataclass(frozen=True)
class ServerLine:
    """A server program and its version line, such as redis 7.2; releases within a line read each other's data."""

    program: str
    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.program} {self.major}.{self.minor}"

    @property
    def version(self) -> tuple[int, int]:
        return self.major, self.minor

    def can_read(self, written_by: "ServerLine") -> bool:
        """Whether this server reads the other's data: an older line of the same program, or what both descend from."""
        if self.program == written_by.program:
            return self.version >= written_by.version
        return self.program == "valkey" and written_by.version <= LAST_COMMON_VERSION


def read_line_of(program: str) -> ServerLine | None:
    """The line of a server program, by its `--version`; None when it can't be told."""
    try:
        output = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT_SECONDS, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"(redis|valkey)[ -]server v=(\d+)\.(\d+)", output, re.IGNORECASE)
    return ServerLine(match[1].lower(), int(match[2]), int(match[3])) if match else None


def read_writer(home: Path) -> ServerLine | None:
    """The line that wrote the data: as recorded, or by its files where an older farm did not; None for no data."""
    has_directory = (home / "appendonlydir").exists()
    try:
        recorded = ServerLine(**json.loads((home / RECORD_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        recorded = None
    if has_directory and (recorded is None or recorded.major < 7):
        return ServerLine("redis", 7, 0)
    if recorded is None and (home / "appendonly.aof").exists():
        return ServerLine("redis", 6, 0)
    return recorded


def write_writer(home: Path, line: ServerLine | None) -> None:
    """Records the line of the server that has just started on the data."""
    if line and read_writer(home) != line:
        draft = home / f"{RECORD_FILE}.new"
        draft.write_text(json.dumps(asdict(line)))
        draft.replace(home / RECORD_FILE)


def has_append_only_file(home: Path) -> bool:
    """Whether there is one, of Redis 6 or newer; a server that has it loads no snapshot."""
    return (home / "appendonly.aof").exists() or any((home / "appendonlydir").glob("*.manifest"))


def needs_snapshot(home: Path) -> bool:
    """Whether a snapshot (`dump.rdb`) is all there is: with `appendonly yes` a server ignores it and starts empty."""
    return (home / "dump.rdb").exists() and not has_append_only_file(home)


def choose_program(home: Path, programs: Iterable[str]) -> tuple[str, ServerLine | None]:
    """Chooses the first program that can read the data, and returns it with its line.

    Those that don't tell their version, perhaps because they don't run on this machine, come last.

    Raises StoreUnavailable when none of them can read the data.
    """
    candidates = sorted(
        ((program, read_line_of(program)) for program in programs), key=lambda candidate: candidate[1] is None
    )
    writer = read_writer(home)
    for program, line in candidates:
        if writer is None or line is None or line.can_read(writer):
            return program, line
    listed = ", ".join(f"{line} ({program})" for program, line in candidates)
    raise StoreUnavailable(
        f"the data in {home} was written by {writer}, and can't be read by {listed}: put a server of that line or a "
        "newer one on PATH, or set REDIS_URL; nothing was changed"
    )
