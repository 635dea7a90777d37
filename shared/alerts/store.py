"""Reads alerts, notices and receivers from Redis; workers/alerts writes them."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from redis import Redis

from shared import clock, keys
from shared.alerts.notices import Alert, Notice
from shared.alerts.receivers import Receiver
from shared.decoding import UnreadableRecord
from shared.settings.alert_parsers import ALERT_RULES

T = TypeVar("T")
#: Notices that are kept. A receiver that is away for longer than they last misses the oldest.
MAX_NOTICES = 1000
#: Seconds after which a notice is told no more: a receiver that comes back after that reads the time line.
NOTICE_TTL_SECONDS = 86_400.0
#: Seconds for which alerts and receivers are kept while no worker process has FARM_ALERT_URLS.
KEPT_SECONDS = 7 * 86_400


@dataclass(frozen=True)
class AlertStatus:
    """Where alerts stand."""

    #: Whether a worker process watches for alerts.
    is_watched: bool
    alerts: list[Alert]
    #: Id -> receiver.
    receivers: dict[str, Receiver]
    #: Id of a receiver -> notices that it has not been told yet.
    waiting: dict[str, int]


def read_status(redis: Redis) -> AlertStatus:
    with redis.pipeline(transaction=False) as pipe:
        pipe.exists(keys.ALERT_LEASE)
        pipe.hgetall(keys.ALERTS)
        pipe.hgetall(keys.ALERT_RECEIVERS)
        is_watched, alerts, receivers = pipe.execute()
    found = decode_receivers(receivers)
    waiting = {id_: sum(1 for _ in read_notices(redis, receiver.cursor)) for id_, receiver in found.items()}
    raised = sorted(decode_alerts(alerts).values(), key=lambda alert: alert.since)
    return AlertStatus(bool(is_watched), raised, found, waiting)


def count_alerts(redis: Redis) -> dict[str, int]:
    """Rule -> alerts that are raised; empty while no worker process watches."""
    with redis.pipeline(transaction=False) as pipe:
        pipe.exists(keys.ALERT_LEASE)
        pipe.hgetall(keys.ALERTS)
        is_watched, alerts = pipe.execute()
    raised = Counter(alert.rule for alert in decode_alerts(alerts).values())
    return dict.fromkeys(ALERT_RULES, 0) | raised if is_watched else {}


def decode_alerts(stored: Mapping[bytes, bytes]) -> dict[str, Alert]:
    """Id -> alert."""
    return decode_readable(stored, Alert.decode)


def decode_receivers(stored: Mapping[bytes, bytes]) -> dict[str, Receiver]:
    """Id -> receiver."""
    return decode_readable(stored, Receiver.decode)


def decode_readable(stored: Mapping[bytes, bytes], decode: Callable[[bytes], T]) -> dict[str, T]:
    """A hash of records; those that this version can't read are left out."""
    found = {}
    for id_, encoded in stored.items():
        with suppress(UnreadableRecord):
            found[id_.decode()] = decode(encoded)
    return found


def read_notices(redis: Redis, cursor: str, count: int = MAX_NOTICES) -> Iterator[tuple[str, Notice]]:
    """Yields the notices after the one with the id `cursor`, with their ids, but those that are too old."""
    oldest = clock.now() - NOTICE_TTL_SECONDS
    for id_, fields in redis.xrange(keys.ALERT_NOTICES, f"({cursor}", "+", count=count):
        try:
            notice = Notice.decode(fields.get(b"n", b""))
        except UnreadableRecord:
            continue
        if notice.time >= oldest:
            yield id_.decode(), notice


def find_last_notice(redis: Redis) -> str:
    """Id of the newest notice, `0-0` for none."""
    newest = redis.xrevrange(keys.ALERT_NOTICES, "+", "-", count=1)
    return newest[0][0].decode() if newest else "0-0"
