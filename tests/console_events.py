"""What happened on a farm, and who was told of it, for the console's pages."""

import logging
from typing import Any

from redis import Redis

from shared import clock
from shared import keys as farm_keys
from shared.alerts.notices import Alert
from shared.alerts.receivers import Receiver
from shared.observability.event_log import EventBuffer


def fill_events(redis: Redis, ids: list[str], pool: str) -> None:
    """Accounts that cool together, an outage of the upstream, and a worker process that has died."""
    buffer = EventBuffer(redis)

    def log(action: str, **fields: Any) -> None:
        record = logging.makeLogRecord({"action": action, "pool": pool, "msg": "", **fields})
        buffer.emit(record)

    for id_ in ids[:14]:
        log("credential_cooling", credential_id=id_, reason="rate_limited", evidence="upstream 429 rate_limited")
    now = clock.now()
    faults = [
        {"t": now - 5 + number, "credential_id": ids[number], "request_id": f"req_{number}", "reason": "timeout"}
        for number in range(5)
    ]
    log("breaker_opened", reason="timeout", msg="the upstream is down: no job is taken", faults=faults)
    log("breaker_probed", reason="timeout", credential_id=ids[6], request_id="req_6")
    log("breaker_closed", msg="the upstream is back")
    log("process_buried", worker_process="host-12-ab", msg="a worker process died; reclaimed its 3 leases", pool="")
    buffer.write()


def fill_alerts(redis: Redis, pool: str, odd_name: str) -> None:
    now = clock.now()
    alert = Alert("account_dead", pool, "c1", f"account {odd_name} is dead: invalid_grant", "", since=now - 600)
    redis.hset(farm_keys.ALERTS, alert.id, alert.encode())
    receivers = {
        "r1": Receiver("mailto://mail.example.org/…", sent=(now - 500,)),
        "r2": Receiver(
            "json://hooks.example.org/…", failures=3, failed_since=now - 400, retry_at=now + 90, error="404"
        ),
    }
    redis.hset(farm_keys.ALERT_RECEIVERS, mapping={id_: receiver.encode() for id_, receiver in receivers.items()})
    redis.set(farm_keys.ALERT_LEASE, "p1")
