"""Finds the lines of a batch that have begun and that nobody runs."""

from collections.abc import Container

from shared import clock
from shared.batches.running_line import NOBODY, RunningLine
from shared.live_fronts import find_gone_fronts
from web.batches.services import BatchServices


def find_orphans(services: BatchServices, batch_id: str, running_here: Container[int]) -> dict[int, RunningLine]:
    """Their front has ended, or has forgotten them. Raises RedisError."""
    running = services.lines.read_running(batch_id)
    others = {line.front for line in running.values()} - {NOBODY, services.front_id}
    gone = find_gone_fronts(services.redis, sorted(others)) | {NOBODY}
    overdue_at = clock.now() - services.max_run
    return {
        number: line
        for number, line in sorted(running.items())
        if (number not in running_here if line.front == services.front_id else line.front in gone)
        or line.since < overdue_at
    }
