"""Background greenlets that survive exceptions."""

import logging
from collections.abc import Callable

import gevent

log = logging.getLogger("farm.persistence")
#: Seconds before a task that raised or returned is restarted.
RESTART_SECONDS = 1.0


def keep_running(task: Callable[[], None]) -> None:
    """Runs the task forever, restarting it whenever it returns or raises. Exceptions are logged."""
    while True:
        try:
            task()
        except Exception:
            log.exception("%s failed and will be restarted", task.__qualname__, extra={"action": "background_failed"})
        gevent.sleep(RESTART_SECONDS)
