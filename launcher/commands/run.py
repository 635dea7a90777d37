"""`./farm run`, hidden: runs the farm in this process, for `./farm up`."""

import sys

import click
from redis.exceptions import RedisError

from launcher.output import print_line
from launcher.processes.detach import StartReport
from launcher.processes.service_manager import ServiceManager
from launcher.processes.up import AlreadyRunning, run_farm
from shared.errors import FarmError
from shared.settings.file_checks import check_files
from shared.settings.loading import load_settings


@click.command(hidden=True)
@click.option("--report-to", type=int)
def run(report_to: int | None) -> None:
    """Run the farm; `--report-to` is the pipe of the process that started it in the background."""
    report = StartReport(report_to) if report_to is not None else None
    try:
        settings = load_settings()
        check_files(settings)
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
