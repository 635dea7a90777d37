"""Counts the requests in flight on each credential, and keeps the most there ever were (I1)."""

from collections import Counter, defaultdict

from redis import Redis

from shared import keys


class InFlight:
    """The requests in flight in one worker process."""

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()
        #: Configured pool -> most requests on one of its credentials; and those that Redis has been told.
        self._peaks: defaultdict[str, int] = defaultdict(int)
        self._written: dict[str, int] = {}

    def begin(self, pool: str, credential_id: str, others: int) -> None:
        """A request begins. `others`: those that run on the same credential elsewhere; must be none."""
        self._running[credential_id] += 1
        count = self._running[credential_id] + others
        if count > self._peaks[pool]:
            self._peaks[pool] = count

    def end(self, credential_id: str) -> None:
        self._running[credential_id] -= 1
        if not self._running[credential_id]:
            del self._running[credential_id]

    def flush(self, redis: Redis) -> None:
        """Writes peaks that are new to this process; a higher one of another process stays. Raises RedisError."""
        peaks = dict(self._peaks)
        if peaks != self._written:
            redis.zadd(keys.IN_FLIGHT_PEAKS, peaks, gt=True)
            self._written = peaks


def read_peaks(redis: Redis) -> dict[str, int]:
    """Configured pool -> most requests ever in flight on one of its credentials."""
    return {pool.decode(): int(peak) for pool, peak in redis.zrange(keys.IN_FLIGHT_PEAKS, 0, -1, withscores=True)}
