"""Whether files can be stored, as all fronts see it, for operators."""

import logging

from redis import Redis
from redis.exceptions import RedisError

from shared import clock, keys
from shared.files.part_store import PART_BYTES, FileStoreDown, FileStoreFull, PartStore
from shared.redis_connection.client import decode_hash
from shared.reported_state import ReportedState

log = logging.getLogger("farm.files")
OK, FULL, AWAY = "ok", "full", "away"
#: State -> what an operator should know of it, '' for nothing to worry about.
STATES = {
    OK: "",
    FULL: "the store of files is full: uploads are refused, and batches wait with their results",
    AWAY: "the store of files can't be used: uploads are refused, and batches wait with their results",
}
#: Part that is put to find out whether there is room again.
PROBE = "farm/probe"
#: Milliseconds in which no other front does.
PROBE_MS = 8000


class StoreHealth(ReportedState):
    """The state of the store."""

    MEANINGS = STATES


def read_health(redis: Redis) -> StoreHealth:
    """Raises RedisError."""
    stored = decode_hash(redis.hgetall(keys.FILE_STORE_TROUBLE))
    return StoreHealth(stored["state"], float(stored["since"])) if stored.get("state") in STATES else StoreHealth(OK)


def report_failure(redis: Redis, error: FileStoreDown) -> None:
    """Notes that the store has failed. While Redis is away, nobody can be told."""
    state = FULL if isinstance(error, FileStoreFull) else AWAY
    try:
        if read_health(redis).state != state:
            redis.hset(keys.FILE_STORE_TROUBLE, mapping={"state": state, "since": clock.now()})
    except RedisError as failure:
        log.warning("can't note that the store of files has failed: %s", failure, extra={"action": "redis_lost"})


def probe(redis: Redis, store: PartStore, *, is_first: bool = False) -> None:
    """Finds out whether a store that has failed takes a whole part again; one front at a time. Raises RedisError.

    `is_first`: also one that has not failed, as nobody has used it since this front has its settings.
    """
    has_failed = read_health(redis).state != OK
    if not (has_failed or is_first) or not redis.set(keys.FILE_STORE_PROBE, 1, nx=True, px=PROBE_MS):
        return
    try:
        store.put(PROBE, bytes(PART_BYTES))
        store.delete(PROBE)
    except FileStoreDown:
        return
    if has_failed:
        redis.delete(keys.FILE_STORE_TROUBLE)
        log.info("files can be stored again", extra={"action": "file_store_back"})
