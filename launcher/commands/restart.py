"""`./farm restart`."""

import sys

import click

from launcher.commands.lifecycle import find_running, stop
from launcher.output import exit_on_error, print_line
from launcher.processes.bundled_simulator import has_upstream, require_simulator_allowed
from launcher.processes.data_dir import DataDir
from launcher.processes.detach import start_detached
from launcher.store import open_store
from shared.settings.file_checks import check_files
from shared.settings.loading import load_settings


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
