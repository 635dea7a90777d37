"""Refused requests of an API key by error code, which the fronts count in slots of five minutes."""

from collections import Counter
from collections.abc import Mapping

from redis import Redis

from shared import clock, keys

#: Seconds of a slot, and slots that are read: the last 55 to 60 minutes.
SLOT_SECONDS, SLOTS = 300, 12
#: Seconds for which a slot is kept.
KEPT_SECONDS = SLOT_SECONDS * (SLOTS + 1)


def record_refusals(redis: Redis, counts: Mapping[tuple[str, str], int]) -> None:
    """`counts`: API key id and error code -> requests. Raises RedisError; then some may have been counted."""
    slot = current_slot()
    with redis.pipeline(transaction=False) as pipe:
        for (key_id, code), count in counts.items():
            name = keys.refusals(key_id, slot)
            pipe.hincrby(name, code, count)
            pipe.expire(name, KEPT_SECONDS)
        pipe.execute()


def read_refusals(redis: Redis, key_id: str) -> dict[str, int]:
    """Error code -> requests of about the last hour, the most frequent first."""
    first = current_slot() - SLOT_SECONDS * (SLOTS - 1)
    with redis.pipeline(transaction=False) as pipe:
        for number in range(SLOTS):
            pipe.hgetall(keys.refusals(key_id, first + number * SLOT_SECONDS))
        slots = pipe.execute()
    found: Counter[str] = Counter()
    for slot in slots:
        found.update({code.decode(): int(count) for code, count in slot.items()})
    return dict(found.most_common())


def current_slot() -> int:
    """When the slot began, in seconds since the epoch."""
    return int(clock.now()) // SLOT_SECONDS * SLOT_SECONDS
