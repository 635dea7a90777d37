"""Seconds of workers' time that each API key got of a pool, in slots over the last five minutes.

Workers count in memory and write every few seconds: a request costs Redis nothing, a long one counts while it runs.
"""

from collections import defaultdict

from redis import Redis

from shared import clock, keys, names

#: Seconds of a slot; slots that are read, the present one included.
SLOT_SECONDS, SLOTS = 30, 11
#: Seconds for which a slot is kept.
SLOT_TTL_SECONDS = SLOT_SECONDS * (SLOTS + 1)


class KeySeconds:
    """What the workers of this process have given to API keys since the last flush."""

    def __init__(self) -> None:
        #: Pool and API key -> seconds.
        self._seconds: defaultdict[tuple[str, str], float] = defaultdict(float)

    def add(self, pool: str, key: str, seconds: float) -> None:
        """A private credential has one caller, who shares it with nobody."""
        if names.PRIVATE_SEPARATOR not in pool:
            self._seconds[pool, key] += seconds

    def flush(self, redis: Redis) -> None:
        """Adds all to the present slot. What a lost Redis does not take is lost: nothing counts twice."""
        seconds, self._seconds = self._seconds, defaultdict(float)
        if not seconds:
            return
        slot = int(clock.now() // SLOT_SECONDS)
        with redis.pipeline(transaction=False) as pipe:
            for (pool, key), amount in seconds.items():
                pipe.hincrbyfloat(keys.key_seconds(pool, slot), key, round(amount, 3))
            for pool in {pool for pool, _ in seconds}:
                pipe.expire(keys.key_seconds(pool, slot), SLOT_TTL_SECONDS)
            pipe.execute()


def read_slots(redis: Redis, pool: str) -> list[dict[str, float]]:
    """API key -> seconds, for each slot of about the last five minutes, the oldest first."""
    last = int(clock.now() // SLOT_SECONDS)
    with redis.pipeline(transaction=False) as pipe:
        for slot in range(last - SLOTS + 1, last + 1):
            pipe.hgetall(keys.key_seconds(pool, slot))
        return [{key.decode(): float(seconds) for key, seconds in found.items()} for found in pipe.execute()]
