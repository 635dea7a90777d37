"""Stand-ins for parts of the farm that several tests use."""

from rq import SimpleWorker
from rq.job import Job

HEARTBEAT_TTL_SECONDS = 960


class StockWorker(SimpleWorker):
    """A stock RQ worker that neither listens for commands nor handles signals."""

    def subscribe(self) -> None:
        return

    def unsubscribe(self) -> None:
        return

    def _install_signal_handlers(self) -> None:
        return

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        return HEARTBEAT_TTL_SECONDS
