"""Ends the BLMOVEs of worker processes that have fallen silent, so that Redis hands them no more jobs (I2).

Redis does not notice that a host has vanished or is cut off: the connections of its idle workers stay blocked, and
are served first, because they have waited longest. A job handed to one is put back seconds later (unstick.lua), for
the next one to swallow.
"""

from collections.abc import Iterable, Mapping

from redis import Redis

from shared import keys

#: Seconds without a report after which a process is silent. One that is only slow blocks again.
SILENT_AFTER_SECONDS = 3.0
#: Field of a process's report: the ids of its workers' connections in Redis.
CONNECTIONS_FIELD = "connections"


class SilentProcesses:
    """The silent members of the cluster, as one process sees them."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._members: set[str] = set()

    def unblock(self, last_reports: Mapping[str, float], now: float) -> int:
        """Ends the BLMOVEs of silent processes and of those that are members no more; returns how many.

        `last_reports`: member -> when it last reported, in seconds since the epoch, as is `now`.
        """
        silent = {process for process, reported_at in last_reports.items() if now - reported_at > SILENT_AFTER_SECONDS}
        silent |= self._members - set(last_reports)
        self._members = set(last_reports)
        if not silent:
            return 0
        with self._redis.pipeline(transaction=False) as pipe:
            for process in silent:
                pipe.hget(keys.process(process), CONNECTIONS_FIELD)
            encoded = pipe.execute()
            for client_id in (client_id for ids in encoded if ids for client_id in ids.split()):
                pipe.client_unblock(int(client_id))
            return sum(map(int, pipe.execute()))


def encode_ids(client_ids: Iterable[int]) -> str:
    """The value of CONNECTIONS_FIELD; 0 stands for no connection."""
    return " ".join(str(client_id) for client_id in client_ids if client_id)
