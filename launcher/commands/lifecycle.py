"""`./farm up`, `stop`, `restart`, `reload`, `status` and `logs`: the running farm."""

import os
import signal
import sys
import time

import click
from redis.exceptions import RedisError

from launcher.output import exit_on_error, format_time, json_option, mask_password, print_json, print_line
from launcher.processes.bundled_simulator import has_upstream, require_simulator_allowed
from launcher.processes.data_dir import DataDir, FarmRecord
from launcher.processes.detach import StartReport, start_detached
from launcher.processes.service_manager import ServiceManager
from launcher.processes.termination import has_ended, stop_leftovers, wait_until
from launcher.processes.up import AlreadyRunning, run_farm
from launcher.store import open_store
from shared.credentials.store import Credentials
from shared.errors import FarmError
from shared.files.store_health import read_health
from shared.observability.durability import read_durability
from shared.observability.pool_status import PoolStatus, read_pool_statuses
from shared.observability.refreshers import read_refreshers
from shared.reload_report import LAUNCHER, clear_reports, read_note, read_outcome
from shared.settings.file_checks import check_files
from shared.settings.loading import load_settings, read_data_dir
from shared.settings.schema import Settings

#: Seconds beyond the drain times of front and workers that `stop` waits for the launcher to exit.
STOP_GRACE_SECONDS = 120.0
#: Seconds that `reload` waits for the new processes to serve.
RELOAD_TIMEOUT_SECONDS = 90.0


@click.command()
@click.option("--detach", "-d", is_flag=True, help="Run in the background.")
@click.option("--report-to", type=int, hidden=True)
def up(detach: bool, report_to: int | None) -> None:
    """Start the farm and everything it needs; Ctrl-C lets running requests finish, then stops it."""
    report = StartReport(report_to) if report_to is not None else None
    try:
        settings = load_settings()
        check_files(settings)
        if detach:
            sys.exit(start_detached(DataDir(settings.data_dir), print_line))
        on_ready = report.report_ready if report else ServiceManager().report_ready
        sys.exit(run_farm(settings, report.print_line if report else print_line, on_ready))
    except AlreadyRunning as error:
        (report.print_line if report else print_line)(str(error))
        if report:
            report.report_ready()
        sys.exit(0)
    except (FarmError, RedisError, OSError) as error:
        print(f"farm: {error}", file=sys.stderr)
        if report:
            report.report_failure(str(error), 1)
        sys.exit(1)


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
@click.pass_context
@exit_on_error
def restart(context: click.Context) -> None:
    """Stop the farm and start it in the background; invalid settings are reported first, and nothing is stopped."""
    settings = load_settings()
    check_files(settings)
    if not has_upstream(settings) and find_running(DataDir(settings.data_dir)):
        require_simulator_allowed(settings, open_store()[1])
    context.invoke(stop)
    sys.exit(start_detached(DataDir(settings.data_dir), print_line))


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


@click.command()
@json_option
@exit_on_error
def status(as_json: bool) -> None:
    """Show whether the farm is running, and the state of its pools; exit code 1 when it is not running."""
    settings = load_settings()
    record = find_running(DataDir(settings.data_dir))
    if record is None:
        print_json({"running": False}) if as_json else print_line("the farm is not running")
        sys.exit(1)
    redis = open_store()[1]
    statuses = read_pool_statuses(redis, settings.pool_names)
    durability, refreshers, file_store = read_durability(redis), read_refreshers(redis), read_health(redis)
    redis_url = mask_password(record.redis_url)
    if as_json:
        facts = {"running": True, "pid": record.pid, "url": record.url, "redis_url": redis_url}
        facts |= {"started_at": record.started_at, "durability": durability.to_dict()}
        facts["file_store"] = file_store.to_dict()
        print_json({**facts, "pools": [pool.to_dict() for pool in statuses]})
        return
    print_line(f"running since {format_time(record.started_at)}: {record.url} (process {record.pid})")
    print_line(
        "; ".join([f"redis: {redis_url}", f"durability {durability.state}", *durability.warnings, *refreshers.warnings])
    )
    for warning in file_store.warnings:
        print_line(warning)
    for pool in statuses:
        print_line(describe_pool(pool))
    outdated = sum(credential.export_outdated for credential in Credentials(redis).list(settings.pool_names))
    if outdated:
        print_line(f"{outdated} credentials have rotated since they were exported: their exported tokens are stale")


def find_running(data: DataDir) -> FarmRecord | None:
    """Returns the record of the farm that holds the data dir; None when no farm is running there."""
    return data.read_record() if data.is_locked() else None


def describe_pool(pool: PoolStatus) -> str:
    counts = {"workers": pool.workers, "credentials": pool.credentials, "queued": pool.queue_depth}
    text = "; ".join(
        f"{name} {', '.join(f'{count} {state}' for state, count in by_state.items() if count) or 'none'}"
        for name, by_state in counts.items()
    )
    if held := sum(pool.held.values()):
        text += f"; {held} held by limits of their keys"
    if pool.private_credentials:
        text += f"; private credentials {pool.private_credentials}"
    warnings = "".join(f"; {warning}" for warning in pool.warnings)
    return f"pool {pool.name}: {text}; utilisation {pool.utilisation:.0%}{warnings}"


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
        while follow:
            line = file.readline()
            click.echo(line, nl=False) if line else time.sleep(0.2)
