"""`./farm rq`: RQ's own command."""

import os
import sys
from pathlib import Path

import click

from launcher.output import exit_on_error
from launcher.replace_process import replace_process
from launcher.store import find_server_url
from shared.settings.loading import load_settings


@click.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@exit_on_error
def rq(arguments: tuple[str, ...]) -> None:
    """Run RQ's own command on the farm's Redis, e.g. `./farm rq info`."""
    url = find_server_url(load_settings())
    program = Path(sys.executable).with_name("rq")
    # The URL may hold a password, which other users would see on the command line.
    os.environ["RQ_REDIS_URL"] = url
    replace_process([str(program), *arguments])
