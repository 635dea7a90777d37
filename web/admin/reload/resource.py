"""Admin API: compares the settings in force with those that are configured, and has the launcher reload them.

As `./farm reload` does it, on the host of this front: the launcher that has started it gets a signal, and the processes
report into its data dir. Without a launcher (containers, systemd) their master processes take SIGHUP.
"""

import json
import os
import signal
from dataclasses import asdict
from pathlib import Path

import psutil

from shared import clock
from shared.errors import ApiError, SettingsError
from shared.reload_report import (
    LAUNCHER,
    LAUNCHER_VARIABLE,
    REPORT_VARIABLE,
    clear_reports,
    find_report,
    read_note,
    read_outcome,
)
from shared.settings.changes import find_changes
from web.admin.api import router
from web.admin.audit_log import record_change
from web.admin.reload.schemas import Reload, SettingChange
from web.admin.schemas.fields import Empty
from web.services import services
from web.settings import load_front_settings

#: File beside the reports that says when a reload was begun here.
BEGUN_FILE = "begun.json"
#: Seconds after which a reload without all reports counts as failed.
TIMEOUT_SECONDS = 90.0
NO_LAUNCHER = "./farm up has not started this front: send SIGHUP to the master processes of fronts and workers"
STILL_RELOADING = "still reloading, the old processes serve meanwhile; the log says why the new ones do not yet"


@router.route("GET", "/reload", response=Reload)
def get_reload() -> Reload:
    """Get what a reload of farm.toml would change in this front's settings, and how the last reload has ended."""
    try:
        found, problem = find_changes(services().settings, load_front_settings()), ""
    except SettingsError as error:
        found, problem = [], str(error)
    folder = find_folder()
    begun_at = read_begun(folder) if folder else 0.0
    outcome = read_outcome(folder) if folder and begun_at else ""
    if outcome is None and clock.now() - begun_at > TIMEOUT_SECONDS:
        outcome = STILL_RELOADING
    return Reload(
        changes=[SettingChange(**asdict(change)) for change in found],
        problem=problem,
        is_possible=find_launcher() is not None,
        state="none" if not begun_at else "running" if outcome is None else "failed" if outcome else "done",
        error=outcome or "",
        note=read_note(find_report(folder, LAUNCHER)) if folder else "",
        begun_at=begun_at,
    )


@router.route("POST", "/reload", body=Empty, response=Reload, errors=(409,))
def begin_reload(body: Empty) -> Reload:
    """Make the farm read farm.toml again, as `./farm reload` does; running requests go on.

    Invalid settings change nothing. It goes on in the background: GET says how it has ended.
    """
    launcher, folder = find_launcher(), find_folder()
    if launcher is None or folder is None:
        raise ApiError(
            409, "conflict", "./farm up has not started this front: send SIGHUP to the masters of web and workers"
        )
    try:
        load_front_settings()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        clear_reports(folder)
        (folder / BEGUN_FILE).write_text(json.dumps(clock.now()))
        launcher.send_signal(signal.SIGUSR1)
    except (SettingsError, OSError, psutil.Error) as error:
        raise ApiError(409, "conflict", str(error)) from None
    record_change("settings.reload", "")
    return get_reload()


def find_launcher() -> psutil.Process | None:
    """The launcher, if it is the parent of this front's master; another process may have its id by now."""
    named = os.environ.get(LAUNCHER_VARIABLE, "")
    try:
        launcher = psutil.Process(os.getppid()).parent()
    except psutil.Error:
        return None
    return launcher if launcher is not None and str(launcher.pid) == named else None


def find_folder() -> Path | None:
    """Where the processes report how a reload has ended; None without a launcher."""
    report = os.environ.get(REPORT_VARIABLE)
    return Path(report).parent if report else None


def read_begun(folder: Path) -> float:
    """When a reload was begun here, 0 for never."""
    try:
        return float((folder / BEGUN_FILE).read_text())
    except (OSError, ValueError):
        return 0.0
