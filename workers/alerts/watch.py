"""Watches for alerts in one worker process of the farm, and has each receiver told of them, once.

1. The holder of the lease looks every two seconds at what is wrong. Another process takes over when it is killed.
2. What is newly wrong, or no longer, becomes a notice in a stream, in one script with the alert itself.
3. Each receiver has a cursor in that stream. Whatever is behind it goes into one message, which a process of its own
   sends; it moves the cursor. A receiver that fails is tried again, and holds up no other.
"""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
from redis import Redis

from shared import clock, keys
from shared.alerts.notices import Alert, Notice
from shared.alerts.receivers import Receiver, identify, mask_url
from shared.alerts.store import KEPT_SECONDS, MAX_NOTICES, decode_alerts, decode_receivers, find_last_notice
from shared.observability.counters import Counters
from shared.redis_connection.client import register_script
from shared.redis_connection.lease import NOT_HELD, TAKEN, build_lease
from shared.settings.schema import Settings
from workers.alerts.conditions import PATIENCE_SECONDS, BuildAlert, Conditions
from workers.alerts.messengers import Messengers

log = logging.getLogger("farm.alerts")
#: Seconds between two looks.
INTERVAL_SECONDS = 2.0
#: Milliseconds after which another process watches for one that was killed, unless the lease was renewed.
WATCH_TTL_MS = 10_000
#: Seconds for which something must be right again before its alert is over: what comes and goes is one alert.
CALM_SECONDS = 10.0
#: Seconds that a notice waits for others, so that what fails together comes in one message.
GROUP_SECONDS = 3.0


class AlertWatch:
    """One worker process's part in it."""

    def __init__(
        self, redis: Redis, settings: Settings, process_id: str, counters: Counters, *, checks_urls: bool = True
    ) -> None:
        """`checks_urls`: whether the log names URLs that apprise does not take, when this process begins to watch."""
        self._redis = redis
        self._settings = settings
        self._process_id = process_id
        self._hold = build_lease(redis)
        self._change_script = register_script(redis, Path(__file__).with_name("change_alert.lua"))
        self._conditions = Conditions(redis, settings)
        self._messengers = Messengers(settings, counters)
        self._urls = {identify(url): url for url in settings.alert_urls}
        #: Id of what is wrong but not told yet, or told but right again -> since when, by the monotonic clock.
        self._wrong_since: dict[str, float] = {}
        self._right_since: dict[str, float] = {}
        self._is_stopped = False
        self._checks_urls = checks_urls

    def look(self) -> None:
        """One round of the watch, if this process is the one that watches. Raises RedisError."""
        if not self._urls or self._is_stopped:
            return
        held = self._hold(keys.ALERT_LEASE, self._process_id, WATCH_TTL_MS)
        if held == NOT_HELD:
            self._wrong_since.clear()
            self._right_since.clear()
            return
        if held == TAKEN:
            self._prepare_receivers()
            if self._checks_urls:
                gevent.spawn(self._messengers.check, list(self._urls.values()))
        self._update()
        self._notify()

    def test(self) -> dict[str, Any]:
        """Sends a test to every receiver; returns `ok`, and the `results`, or an `error` if there is no receiver."""
        if not self._urls:
            return {"ok": False, "error": "FARM_ALERT_URLS is not set where the workers run", "results": []}
        results = self._messengers.test(self._urls.values())
        return {"ok": not any(result["error"] for result in results), "error": "", "results": results}

    def bury(self, process_id: str) -> None:
        """Another process may watch at once for one that is known to be dead. Raises RedisError."""
        self._hold(keys.ALERT_LEASE, process_id, 0)

    def stop(self) -> None:
        """Lets another process watch; waits a little for messages on their way. Raises RedisError."""
        self._is_stopped = True
        self._messengers.join()
        if self._urls:
            self._hold(keys.ALERT_LEASE, self._process_id, 0)

    def _prepare_receivers(self) -> None:
        """A new receiver is told of what happens from now on; one that is configured no more is forgotten."""
        known = {id_.decode() for id_ in self._redis.hkeys(keys.ALERT_RECEIVERS)}
        cursor = find_last_notice(self._redis)
        with self._redis.pipeline() as pipe:
            for id_, url in self._urls.items():
                pipe.hsetnx(keys.ALERT_RECEIVERS, id_, Receiver(mask_url(url), cursor).encode())
            for id_ in known - set(self._urls):
                pipe.hdel(keys.ALERT_RECEIVERS, id_)
            pipe.execute()

    def _update(self) -> None:
        """Raises alerts of what is newly wrong, and ends those of what is right again."""
        found, raised = self._conditions.find(), decode_alerts(self._redis.hgetall(keys.ALERTS))
        now = time.monotonic()
        self._wrong_since = {id_: self._wrong_since.get(id_, now) for id_ in found if id_ not in raised}
        self._right_since = {id_: self._right_since.get(id_, now) for id_ in raised if id_ not in found}
        for id_, since in self._wrong_since.items():
            if now - since >= PATIENCE_SECONDS.get(id_.partition(":")[0], 0.0):
                self._raise_alert(found[id_])
        for id_, since in self._right_since.items():
            if now - since >= CALM_SECONDS:
                self._end_alert(raised[id_])

    def _raise_alert(self, build: BuildAlert) -> None:
        now = clock.now()
        alert = replace(build(), since=now)
        if self._change(alert, alert.encode(), Notice.of("raised", alert, now)):
            log.warning("alert: %s", alert.describe(), extra=self._log_fields("alert_raised", alert))

    def _end_alert(self, alert: Alert) -> None:
        if self._change(alert, "", Notice.of("over", alert, clock.now())):
            log.info("alert is over: %s", alert.describe_end(), extra=self._log_fields("alert_over", alert))

    def _change(self, alert: Alert, record: str, notice: Notice) -> bool:
        script_keys = [keys.ALERT_LEASE, keys.ALERTS, keys.ALERT_NOTICES]
        args = [self._process_id, alert.id, record, notice.encode(), MAX_NOTICES]
        return bool(self._change_script(keys=script_keys, args=args))

    def _log_fields(self, action: str, alert: Alert) -> dict[str, str]:
        credential = alert.subject if alert.pool else ""
        return {"action": action, "pool": alert.pool, "reason": alert.rule, "credential_id": credential}

    def _notify(self) -> None:
        """Sends each receiver a message when there is something to tell and it may get one."""
        now, last = clock.now(), find_last_notice(self._redis)
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(keys.ALERT_RECEIVERS)
            for key in (keys.ALERTS, keys.ALERT_NOTICES, keys.ALERT_RECEIVERS):
                pipe.expire(key, KEPT_SECONDS)
            stored = pipe.execute()[0]
        for id_, receiver in decode_receivers(stored).items():
            if id_ not in self._urls or parse_id(receiver.cursor) >= parse_id(last):
                continue
            oldest = self._redis.xrange(keys.ALERT_NOTICES, f"({receiver.cursor}", "+", count=1)
            is_complete = oldest and parse_id(oldest[0][0].decode())[0] / 1000 <= now - GROUP_SECONDS
            is_due = receiver.due_at(self._settings.alert_hourly_limit) <= now
            # A process whose watching process was killed may still be sending.
            if is_complete and is_due and not self._redis.exists(keys.alert_delivery(id_)):
                self._messengers.send(self._redis, id_, self._urls[id_], receiver)


def parse_id(notice_id: str) -> tuple[int, int]:
    """The milliseconds since the epoch and the number in an id of a stream."""
    milliseconds, _, number = notice_id.partition("-")
    return int(milliseconds), int(number or 0)
