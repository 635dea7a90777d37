"""`./farm stop`, `reload` and `logs`: the running farm."""

import os
import signal
import time

import click

from launcher.lost_output import has_reader
from launcher.output import exit_on_error, print_line
from launcher.processes.data_dir import DataDir, FarmRecord
from launcher.processes.termination import has_ended, stop_leftovers, wait_until
from shared.errors import FarmError
from shared.reload_report import LAUNCHER, clear_reports, read_note, read_outcome
from shared.settings.file_checks import check_files
from shared.settings.loading import load_settings, read_data_dir
from shared.settings.schema import Settings

#: Seconds beyond the drain times of front and workers that `stop` waits for the launcher to exit.
STOP_GRACE_SECONDS = 120.0
#: Seconds that `reload` waits for the new processes to serve.
RELOAD_TIMEOUT_SECONDS = 90.0


@click.command()
@exit_on_error
def stop() -> None:
    """Stop the farm; running requests get FARM_DRAIN seconds to finish, waiting ones are refused."""
    data = DataDir(read_data_dir())
    timeout = 2 * read_drain() + STOP_GRACE_SECONDS
    record = data.read_record()
    if data.is_locked() and record:
        os.kill(record.pid, signal.SIGTERM)
        if not wait_until(lambda: not data.is_locked() and has_ended(record.pid), timeout):
            raise FarmError(f"the farm (process {record.pid}) did not stop within {timeout:.0f} s")
        print_line("stopped")
    elif record and data.lock():
        count = stop_leftovers(record)
        data.unlock()
        print_line(f"the farm was not running; stopped {count} processes that it had left behind")
    else:
        print_line("the farm is not running")


@click.command()
@exit_on_error
def reload() -> None:
    """Make the running farm read farm.toml again; invalid settings change nothing. Running requests continue."""
    settings = load_settings()
    check_files(settings)
    data = DataDir(settings.data_dir)
    record = find_running(data)
    if record is None:
        raise FarmError("the farm is not running")
    clear_reports(data.reload_report(LAUNCHER).parent)
    os.kill(record.pid, signal.SIGUSR1)
    if not wait_until(lambda: is_reload_over(data), RELOAD_TIMEOUT_SECONDS):
        raise FarmError("still reloading, the old processes serve meanwhile; the log says why the new ones do not yet")
    print_line("reloaded; running requests end on the old processes")
    if note := read_note(data.reload_report(LAUNCHER)):
        print_line(note)


def is_reload_over(data: DataDir) -> bool:
    """Whether all processes have reloaded. Raises FarmError when one has not, and keeps its settings."""
    outcome = read_outcome(data.reload_report(LAUNCHER).parent)
    if outcome:
        raise FarmError(outcome)
    return outcome == ""


def read_drain() -> float:
    """FARM_DRAIN, or its default when the settings are invalid: a running farm can be stopped even then."""
    try:
        return load_settings().drain
    except FarmError:
        return Settings.drain


def find_running(data: DataDir) -> FarmRecord | None:
    """Returns the record of the farm that holds the data dir; None when no farm is running there."""
    return data.read_record() if data.is_locked() else None


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Keep printing new lines as they are written.")
@click.option("--lines", "-n", default=200, show_default=True, help="Number of lines to show from the end.")
@exit_on_error
def logs(follow: bool, lines: int) -> None:
    """Print the log of the detached farm."""
    log_file = DataDir(read_data_dir()).log_file
    if not log_file.exists():
        raise FarmError("there is no log yet: `./farm up --detach` writes one")
    with log_file.open(errors="replace") as file:
        click.echo("".join(file.readlines()[-lines:]), nl=False)
        while follow and has_reader():
            line = file.readline()
            click.echo(line, nl=False) if line else time.sleep(0.2)
