"""`python -m workers`: runs the worker processes under a supervisor."""

from gevent import monkey

monkey.patch_all()

# The imports below must come after the patch.
import functools
import gc
import sys

from shared.errors import FarmError
from shared.reload_report import report_reload
from shared.settings.loading import load_settings
from shared.standard_streams import keep_writable
from workers.process.main import check_settings, serve
from workers.refresher.process import serve_refresher
from workers.supervisor import ProcessPlan, Supervisor


def main() -> int:
    """Runs until SIGTERM or SIGINT."""
    keep_writable()
    try:
        plan = load_plan()
    except FarmError as error:
        print(f"farm: {error}", file=sys.stderr)
        return 1
    gc.freeze()
    return Supervisor(plan, reload_plan).run()


def load_plan() -> ProcessPlan:
    """Loads and checks the settings. Raises FarmError."""
    settings = load_settings()
    check_settings(settings)
    return ProcessPlan(
        serve=functools.partial(serve, settings),
        count=settings.worker_process_count,
        drain_seconds=settings.drain,
        retire_seconds=settings.max_total_timeout,
        serve_refresher=functools.partial(serve_refresher, settings),
    )


def reload_plan() -> ProcessPlan | None:
    """Loads farm.toml again; None, with a report, when it is invalid."""
    try:
        return load_plan()
    except FarmError as error:
        report_reload(str(error))
        return None


if __name__ == "__main__":
    sys.exit(main())
