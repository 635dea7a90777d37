"""`./farm`: the one command of the operator."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
from click.shell_completion import get_completion_class
from redis.exceptions import RedisError

from launcher.commands.admin_tokens import admin_tokens
from launcher.commands.backup import export, import_
from launcher.commands.config import config, pools
from launcher.commands.credentials import credentials
from launcher.commands.keys import keys
from launcher.commands.usage import audit, requests, usage
from launcher.output import format_time, json_option, print_json, print_line
from launcher.processes.data_dir import DataDir, has_ended, stop_leftovers, wait_until
from launcher.processes.detach import StartReport, start_detached
from launcher.processes.up import AlreadyRunning, run_farm
from launcher.store import exit_on_error, open_store
from shared.credentials.store import Credentials
from shared.errors import FarmError
from shared.observability.pool_status import read_pool_statuses
from shared.settings.loading import load_settings, read_data_dir

#: Seconds that `stop` waits: running requests get 30, the processes some more to end.
PATIENCE = 180.0
ROOT = Path(__file__).resolve().parent.parent


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def farm() -> None:
    """One OpenAI-compatible endpoint in front of many accounts: a queue, and one worker per refresh token."""


@farm.command(name="up")
@click.option("--detach", "-d", is_flag=True, help="Run in the background.")
@click.option("--report-to", type=int, hidden=True)
def up_(detach: bool, report_to: int | None) -> None:
    """Start the farm and everything it needs; Ctrl-C lets running requests end and stops it."""
    report = StartReport(report_to) if report_to is not None else None
    try:
        settings = load_settings()
        if detach:
            sys.exit(start_detached(DataDir(settings.data_dir), print_line))
        sys.exit(
            run_farm(
                settings, report.print_line if report else print_line, report.report_ready if report else lambda: None
            )
        )
    except AlreadyRunning as running:
        (report.print_line if report else print_line)(str(running))
        if report:
            report.report_ready()
        sys.exit(0)
    except (FarmError, RedisError, OSError) as error:
        print(f"farm: {error}", file=sys.stderr)
        if report:
            report.report_failure(str(error), 1)
        sys.exit(1)


@farm.command()
@exit_on_error
def stop() -> None:
    """Stop the farm; running requests get up to 30 seconds."""
    data = DataDir(read_data_dir())
    running = data.read_record()
    if data.is_locked() and running:
        os.kill(running.pid, 15)
        if not wait_until(lambda: not data.is_locked() and has_ended(running.pid), PATIENCE):
            raise FarmError(f"the farm (process {running.pid}) does not end")
        print_line("stopped")
    elif running and data.lock():
        ended = stop_leftovers(running)
        data.unlock()
        print_line(f"the farm was not running; ended {ended} processes it had left")
    else:
        print_line("the farm is not running")


@farm.command()
@click.pass_context
@exit_on_error
def restart(context: click.Context) -> None:
    """Stop the farm and start it in the background; a bad setting is told first, and nothing is stopped."""
    settings = load_settings()
    context.invoke(stop)
    sys.exit(start_detached(DataDir(settings.data_dir), print_line))


@farm.command()
@exit_on_error
def reload() -> None:
    """Have the running farm read farm.toml again; a bad one changes nothing. Running requests go on."""
    data = DataDir(load_settings().data_dir)
    running = data.read_record() if data.is_locked() else None
    if running is None:
        raise FarmError("the farm is not running")
    os.kill(running.pid, signal.SIGUSR1)
    print_line("reloading; what became of it is in the log")


@farm.command()
@json_option
@exit_on_error
def status(as_json: bool) -> None:
    """Whether the farm runs, and what its pools do; exit code 1 when it does not."""
    settings = load_settings()
    data = DataDir(settings.data_dir)
    running = data.read_record() if data.is_locked() else None
    if running is None:
        print_json({"running": False}) if as_json else print_line("the farm is not running")
        sys.exit(1)
    redis = open_store()[1]
    states = read_pool_statuses(redis, settings.pool_names)
    if as_json:
        facts = {"running": True, "pid": running.pid, "url": running.url, "redis_url": running.redis_url}
        print_json({**facts, "started_at": running.started_at, "pools": [state.to_dict() for state in states]})
        return
    print_line(f"running since {format_time(running.started_at)}: {running.url} (process {running.pid})")
    print_line(f"redis: {running.redis_url}")
    for state in states:
        parts = {"workers": state.workers, "credentials": state.credentials, "queued": state.queue_depth}
        words = "; ".join(f"{k} {', '.join(f'{n} {s}' for s, n in v.items() if n) or 'none'}" for k, v in parts.items())
        down = "; its upstream is down" if state.upstream_down else ""
        if state.private_credentials:
            words += f"; private credentials {state.private_credentials}"
        print_line(f"pool {state.name}: {words}; utilisation {state.utilisation:.0%}{down}")
    outdated = sum(one.export_outdated for one in Credentials(redis).list(settings.pool_names))
    if outdated:
        print_line(
            f"{outdated} credentials have rotated since they were exported: their exported tokens are good no more"
        )


@farm.command()
@click.option("--follow", "-f", is_flag=True, help="Go on printing what comes.")
@click.option("--lines", "-n", default=200, show_default=True, help="How many lines back.")
@exit_on_error
def logs(follow: bool, lines: int) -> None:
    """Print the log of the detached farm."""
    log = DataDir(read_data_dir()).log_file
    if not log.exists():
        raise FarmError("there is no log yet: `./farm up --detach` writes one")
    with log.open(errors="replace") as file:
        click.echo("".join(file.readlines()[-lines:]), nl=False)
        while follow:
            line = file.readline()
            click.echo(line, nl=False) if line else time.sleep(0.2)


@farm.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(arguments: tuple[str, ...]) -> None:
    """Run the whole test suite (arguments go to pytest)."""
    sys.exit(subprocess.run([sys.executable, ROOT / "tests" / "run.py", *arguments], check=False).returncode)


@farm.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Measure the farm (`./farm bench --help` lists what)."""
    sys.exit(subprocess.run([sys.executable, "-m", "bench", *arguments], check=False).returncode)


@farm.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete the commands of a `farm` on PATH, e.g. for `source <(./farm completion bash)`."""
    made = get_completion_class(shell)
    assert made is not None
    print_line(made(farm, {}, "farm", "_FARM_COMPLETE").source())


for command in (credentials, keys, pools, config, admin_tokens, usage, requests, audit, export, import_):
    farm.add_command(command)

if __name__ == "__main__":
    farm(prog_name="farm")
