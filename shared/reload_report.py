"""Tells `./farm reload` how a reload has ended, by a file that the launcher names in the environment.

Without a launcher (containers, systemd) the log is the only report.
"""

import json
import os
import sys
from pathlib import Path

#: Environment variable with the path of this process's report.
REPORT_VARIABLE = "RELOAD_REPORT"
#: Environment variable with the launcher's process id.
LAUNCHER_VARIABLE = "LAUNCHER_PID"
#: Who reports the result of a reload: the launcher if the settings are invalid, else each of the processes.
LAUNCHER, RELOADED_PROCESSES = "launcher", ("web", "worker")


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


def write_report(path: Path, error: str = "", note: str = "") -> None:
    """Replaces the report atomically; `note` is what is to be said beside a success. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps({"error": error, "note": note}))
    draft.replace(path)


def read_report(path: Path) -> str | None:
    """Returns the error of a report, '' for success; None while there is none."""
    return read_field(path, "error")


def read_note(path: Path) -> str:
    """Returns what a report says beside a success, '' for nothing."""
    return read_field(path, "note") or ""


def clear_reports(folder: Path) -> None:
    """Removes the reports of earlier reloads, so that those of the next one can be told from them. Raises OSError."""
    for process in (LAUNCHER, *RELOADED_PROCESSES):
        find_report(folder, process).unlink(missing_ok=True)


def find_report(folder: Path, process: str) -> Path:
    """The report of a process: by the Procfile's name of it, or `launcher`."""
    return folder / f"{process}.json"


def read_outcome(folder: Path) -> str | None:
    """Why the last reload has failed, '' if all processes have reloaded; None while not all have reported."""
    if error := read_report(find_report(folder, LAUNCHER)):
        return f"not reloaded, the settings are unchanged: {error}"
    results = {process: read_report(find_report(folder, process)) for process in RELOADED_PROCESSES}
    for process, error in results.items():
        if error:
            return f"{process} is not reloaded and keeps its settings: {error}"
    return None if None in results.values() else ""


def read_field(path: Path, name: str) -> str | None:
    try:
        return str(json.loads(path.read_text())[name])
    except FileNotFoundError:
        return None
