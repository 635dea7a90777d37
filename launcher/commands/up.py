"""`./farm up`: starts the farm, in the background or by the hidden command `run`."""

import sys

import click

from launcher.output import exit_on_error, print_line
from launcher.processes.data_dir import DataDir
from launcher.processes.detach import start_detached
from shared.settings.file_checks import check_files
from shared.settings.loading import load_settings


@click.command()
@click.option("--detach", "-d", is_flag=True, help="Run in the background.")
@click.option("--report-to", type=int, hidden=True)
@click.pass_context
@exit_on_error
def up(context: click.Context, detach: bool, report_to: int | None) -> None:
    """Start the farm and everything it needs; Ctrl-C lets running requests finish, then stops it."""
    if detach:
        settings = load_settings()
        check_files(settings)
        sys.exit(start_detached(DataDir(settings.data_dir), print_line))
    group = context.find_root().command
    assert isinstance(group, click.Group)
    # Its module imports what only the process that runs the farm needs.
    run = group.get_command(context, "run")
    assert run
    context.invoke(run, report_to=report_to)
