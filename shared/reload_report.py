"""Tells `./farm reload` how a reload has ended, by a file that the launcher names in the environment.

Without a launcher (containers, systemd) the log is the only report.
"""

import json
import os
import sys
from pathlib import Path

#: Environment variable with the path of this process's report.
REPORT_VARIABLE = "RELOAD_REPORT"


def report_reload(error: str = "") -> None:
    """Reports that the settings are in force, or why they are not and the old ones stay."""
    text = f"not reloaded, the settings are unchanged: {error}" if error else "reloaded"
    print(f"farm: {text}", file=sys.stderr, flush=True)
    path = os.environ.get(REPORT_VARIABLE)
    if not path:
        return
    try:
        write_report(Path(path), error)
    except OSError as failure:
        print(f"farm: can't write {path}: {failure}", file=sys.stderr, flush=True)


def write_report(path: Path, error: str) -> None:
    """Replaces the report atomically. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps({"error": error}))
    draft.replace(path)


def read_report(path: Path) -> str | None:
    """Returns the error of a report, '' for success; None while there is none."""
    try:
        return str(json.loads(path.read_text())["error"])
    except FileNotFoundError:
        return None
