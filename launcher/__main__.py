"""The entry point of `./farm`."""

import os
import sys
from pathlib import Path
from typing import NoReturn

import click
from click.shell_completion import get_completion_class

from launcher.commands.admin_tokens import admin_tokens
from launcher.commands.alerts import alerts
from launcher.commands.backup import export, import_
from launcher.commands.batches import batches
from launcher.commands.config import config, pools
from launcher.commands.credentials import credentials
from launcher.commands.files import files
from launcher.commands.keys import keys
from launcher.commands.lifecycle import logs, reload, restart, status, stop, up
from launcher.commands.plan import plan
from launcher.commands.rekey import rekey
from launcher.commands.sessions import sessions
from launcher.commands.top import top
from launcher.commands.usage import audit, events, requests, usage
from launcher.output import exit_on_error, print_line
from launcher.store import find_server_url
from shared.settings.loading import load_settings

ROOT = Path(__file__).resolve().parent.parent


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def farm() -> None:
    """One OpenAI-compatible endpoint in front of many accounts: a queue, and one worker per refresh token."""


@farm.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(arguments: tuple[str, ...]) -> None:
    """Run the whole test suite (arguments go to pytest)."""
    replace_process([sys.executable, str(ROOT / "tests" / "run.py"), *arguments])


@farm.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Measure the farm (`./farm bench --help` lists the benchmarks)."""
    replace_process([sys.executable, "-m", "bench", *arguments])


@farm.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@exit_on_error
def rq(arguments: tuple[str, ...]) -> None:
    """Run RQ's own command on the farm's Redis, e.g. `./farm rq info`."""
    url = find_server_url(load_settings())
    program = Path(sys.executable).with_name("rq")
    # The URL may hold a password, which other users would see on the command line.
    os.environ["RQ_REDIS_URL"] = url
    replace_process([str(program), *arguments])


@farm.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL for a `farm` on PATH, e.g. for `source <(./farm completion bash)`."""
    completion_class = get_completion_class(shell)
    assert completion_class is not None
    print_line(completion_class(farm, {}, "farm", "_FARM_COMPLETE").source())


def replace_process(command: list[str]) -> NoReturn:
    """Becomes this command, so that a signal to `./farm` reaches it."""
    sys.stdout.flush()
    os.execv(command[0], command)


for command in (up, stop, restart, reload, status, logs):
    farm.add_command(command)
for command in (
    credentials,
    keys,
    files,
    pools,
    config,
    admin_tokens,
    sessions,
    batches,
    alerts,
    top,
    plan,
    usage,
    requests,
    audit,
    events,
    export,
    import_,
    rekey,
):
    farm.add_command(command)

if __name__ == "__main__":
    farm(prog_name="farm")
