"""Starts the processes that send messages, one per receiver at a time, and hears what has become of them."""

import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import gevent
from gevent import subprocess
from gevent.pool import Pool
from redis import Redis
from redis.exceptions import RedisError

from shared import clock, keys
from shared.alerts.orders import CHECK, DELIVER, DELIVERY_SECONDS, TEST, Order, Outcome
from shared.alerts.receivers import Receiver, identify, mask_url, name_service
from shared.decoding import UnreadableRecord
from shared.observability.counters import Counters
from shared.redis_connection.lease import build_lease
from shared.settings.schema import Settings

log = logging.getLogger("farm.alerts")
ROOT = Path(__file__).resolve().parent.parent.parent
#: Messages on their way at the same time, which take memory.
MAX_PROCESSES = 4
#: Seconds that a test may take: an operator waits for it.
TEST_SECONDS = 40.0
#: Seconds for which a process that ends waits for them.
JOIN_SECONDS = 5.0


class Messengers:
    """The messages of one worker process that are on their way."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._settings = settings
        self._counters = counters
        #: Id of a receiver -> its delivery.
        self._deliveries: dict[str, gevent.Greenlet] = {}

    def send(self, redis: Redis, receiver_id: str, url: str, receiver: Receiver) -> None:
        """Starts to tell the receiver, unless that is on its way already."""
        self._deliveries = {id_: greenlet for id_, greenlet in self._deliveries.items() if not greenlet.dead}
        if receiver_id not in self._deliveries and len(self._deliveries) < MAX_PROCESSES:
            order = self._build_order(url)
            self._deliveries[receiver_id] = gevent.spawn(self._deliver, redis, order, receiver)

    def test(self, urls: Iterable[str]) -> list[dict[str, str]]:
        """Sends a test to each, and waits for them; returns each `receiver` with its `error`, '' for none."""

        def send_test(url: str) -> dict[str, str]:
            outcome = run_order(self._build_order(url, TEST), TEST_SECONDS)
            return {"receiver": mask_url(url), "error": outcome.error if outcome else "no reply in time"}

        results: list[dict[str, str]] = Pool(MAX_PROCESSES).map(send_test, list(urls))
        return results

    def check(self, urls: Iterable[str]) -> None:
        """Logs what is wrong with URLs, when that is known."""
        for url in urls:
            outcome = run_order(self._build_order(url, CHECK))
            if outcome and outcome.error:
                fields = {"action": "alert_undelivered", "reason": outcome.error}
                log.error("a receiver of alerts can't be told: %s", outcome.error, extra=fields)

    def join(self) -> None:
        gevent.joinall(list(self._deliveries.values()), timeout=JOIN_SECONDS)

    def _build_order(self, url: str, kind: str = DELIVER) -> Order:
        domain = self._settings.domain
        link = f"https://{domain[0]}/admin/events" if domain else ""
        farm = domain[0] if domain else f"token farm on {os.uname().nodename}"
        return Order(self._settings.redis_url, url, identify(url), farm, link, kind, self._settings.alert_language)

    def _deliver(self, redis: Redis, order: Order, receiver: Receiver) -> None:
        outcome = run_order(order)
        if outcome is None:
            outcome = Outcome(error="the process that sent the message was killed, or took too long")
            self._record_killed(redis, order, receiver, outcome.error)
        if outcome.error or outcome.told:
            self._counters.increment("alert_messages", name_service(order.url), "failed" if outcome.error else "sent")
        name = mask_url(order.url)
        if outcome.error and not receiver.failures:
            fields = {"action": "alert_undelivered", "reason": outcome.error}
            log.error("the receiver of alerts %s can't be told: %s", name, outcome.error, extra=fields)
        elif outcome.told:
            action = "alert_receiver_back" if receiver.failures else "alert_delivered"
            log.info("%d notices went to %s", outcome.told, name, extra={"action": action})

    def _record_killed(self, redis: Redis, order: Order, receiver: Receiver, error: str) -> None:
        """Tries again later, and lets another process send meanwhile."""
        try:
            build_lease(redis)(keys.alert_delivery(order.receiver), order.token, 0)
            failed = receiver.with_failure(error, clock.now())
            redis.hset(keys.ALERT_RECEIVERS, order.receiver, failed.encode())
        except RedisError as lost:
            log.warning("can't record a failed delivery: %s", lost, extra={"action": "redis_lost"})


def run_order(order: Order, seconds: float = DELIVERY_SECONDS + 10) -> Outcome | None:
    """Runs a process for it, which goes on if this one is killed; None if it was killed itself, or took too long."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FARM_", "REDIS_URL"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "workers.alerts"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        with gevent.Timeout(seconds):
            output, _ = process.communicate(order.encode())
        return Outcome.decode(output)
    except (gevent.Timeout, UnreadableRecord, OSError):
        return None
    finally:
        if process.poll() is None:
            process.kill()
