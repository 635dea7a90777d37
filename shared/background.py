"""Background greenlets that survive exceptions."""

import logging
from collections.abc import Callable

import gevent

log = logging.getLogger("farm.persistence")
#: Seconds before work that raised or returned is started again.
RESTART_SECONDS = 1.0


def keep_running(work: Callable[[], None]) -> None:
    """Runs work forever; an exception is logged and the work is started again."""
    while True:
        try:
            work()
        except Exception:
            log.exception("%s failed and begins again", work.__qualname__, extra={"action": "background_failed"})
        gevent.sleep(RESTART_SECONDS)
