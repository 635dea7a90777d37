"""Whether Redis confirms that rotated refresh tokens are on disk before they are used (I4), for operators."""

from typing import Any

from redis import Redis

from shared import keys
from shared.redis_connection.client import decode_hash
from shared.reported_state import ReportedState

#: State -> what an operator should know of it, '' for nothing to worry about; the worst first. INFO tells some of them,
#: the others are reported by the worker processes, which wait for the disk.
STATES = {
    "no_aof": "Redis has no append-only file: a crash of it loses rotated refresh tokens (appendonly yes)",
    "write_error": "Redis can't write its append-only file: is its disk full?",
    "slow": "Redis does not confirm in time that rotated refresh tokens are on disk: its disk is too slow",
    "replicas": "fewer replicas than FARM_WAIT_REPLICAS take over rotated refresh tokens in time",
    "unconfirmed": "",  # Redis before 7.2 has no WAITAOF; it writes within a second.
    "unknown": "",  # no worker process has reported yet
    "confirmed": "",
}


class Durability(ReportedState):
    """The worst state that Redis or a worker process tells of."""

    MEANINGS = STATES


def read_durability(redis: Redis) -> Durability:
    with redis.pipeline(transaction=False) as pipe:
        pipe.info("persistence")
        pipe.zrange(keys.PROCESSES, 0, -1)
        persistence, processes = pipe.execute()
    with redis.pipeline(transaction=False) as pipe:
        for process in processes:
            pipe.hgetall(keys.process(process.decode()))
        reports = [decode_hash(reply) for reply in pipe.execute()] if processes else []
    reported = [
        Durability(report["durability"], float(report["durability_since"]))
        for report in reports
        if report.get("durability") in STATES
    ]
    if failure := find_persistence_failure(persistence):
        reported.append(Durability(failure))
    order = list(STATES)
    return min(reported, key=lambda durability: order.index(durability.state), default=Durability("unknown"))


def find_persistence_failure(persistence: dict[str, Any]) -> str:
    """The state by Redis's own account (INFO persistence); '' when it has nothing to complain of.

    Services that leave these fields out do not let their users see how they persist.
    """
    if not persistence.get("aof_enabled", 1):
        return "no_aof"
    return "" if persistence.get("aof_last_write_status", "ok") == "ok" else "write_error"
