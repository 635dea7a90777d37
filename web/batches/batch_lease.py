"""The lease of one batch: the front that has it begins its lines, stores its results and ends it."""

import logging

import gevent
from gevent.event import Event
from redis.exceptions import RedisError

from shared.batches.batch_leases import BatchLeases

log = logging.getLogger("farm.batches")
#: Seconds between two renewals.
RENEWAL_SECONDS = 2.0


class BatchLease:
    """One that this front has taken, until it is given up or lost."""

    def __init__(self, leases: BatchLeases, batch_id: str, holder: str) -> None:
        self._leases = leases
        self._batch_id = batch_id
        self.holder = holder
        #: Set when no line may begin any more.
        self.ended = Event()

    def renew(self) -> None:
        """Returns when the lease has ended."""
        while not self.ended.is_set():
            gevent.sleep(RENEWAL_SECONDS)
            try:
                if not self.ended.is_set() and not self._leases.hold(self._batch_id, self.holder):
                    log.warning("another front has taken batch %s over", self._batch_id, extra={"action": "batch_lost"})
                    self.ended.set()
            except RedisError as error:
                log.warning("can't renew a batch's lease: %s", error, extra={"action": "redis_lost"})

    def end(self) -> None:
        """Gives it up in the background: a front that is stopped can't wait for a Redis that is away."""
        self.ended.set()
        gevent.spawn(self.give_up)

    def give_up(self) -> None:
        """Lets another front take it at once. Idempotent."""
        self.ended.set()
        try:
            self._leases.give_up(self._batch_id, self.holder)
        except RedisError as error:
            log.warning("a batch's lease has to expire: %s", error, extra={"action": "redis_lost"})
