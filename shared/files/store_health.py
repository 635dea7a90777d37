"""Whether files can be stored, as all fronts see it, for operators."""

import logging
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from shared import clock, keys
from shared.files.part_store import PART_BYTES, FileStoreDown, FileStoreFull, PartStore
from shared.redis_connection.client import decode_hash

log = logging.getLogger("farm.files")
FULL, AWAY = "full", "away"
#: State -> what an operator should know of it, '' for nothing to worry about.
STATES = {
    "ok": "",
    FULL: "the store of files is full: uploads are refused, and batches wait with their results",
    AWAY: "the store of files can't be used: uploads are refused, and batches wait with their results",
}
#: Part that is put to find out whether there is room again.
PROBE = "farm/probe"
#: Milliseconds in which no other front does.
PROBE_MS = 8000


@dataclass(frozen=True)
class StoreHealth:
    """The state of the store, and since when, in seconds since the epoch."""

    state: str = "ok"
    since: float | None = None

    @property
    def warnings(self) -> list[str]:
        """What an operator should know, as sentences without a full stop."""
        return [STATES[self.state]] if STATES[self.state] else []

    def to_dict(self) -> dict[str, Any]:
        return {"state": self.state, "since": self.since}


def read_health(redis: Redis) -> StoreHealth:
    """Raises RedisError."""
    stored = decode_hash(redis.hgetall(keys.FILE_STORE_TROUBLE))
    return StoreHealth(stored["state"], float(stored["since"])) if stored.get("state") in STATES else StoreHealth()


def report_failure(redis: Redis, error: FileStoreDown) -> None:
    """Notes that the store has failed. While Redis is away, nobody can be told."""
    state = FULL if isinstance(error, FileStoreFull) else AWAY
    try:
        if read_health(redis).state != state:
            redis.hset(keys.FILE_STORE_TROUBLE, mapping={"state": state, "since": clock.now()})
    except RedisError as failure:
        log.warning("can't note that the store of files has failed: %s", failure, extra={"action": "redis_lost"})


def probe(redis: Redis, store: PartStore) -> None:
    """Finds out whether a store that has failed takes a whole part again; one front at a time. Raises RedisError."""
    if read_health(redis).state == "ok" or not redis.set(keys.FILE_STORE_PROBE, 1, nx=True, px=PROBE_MS):
        return
    try:
        store.put(PROBE, bytes(PART_BYTES))
        store.delete(PROBE)
    except FileStoreDown:
        return
    redis.delete(keys.FILE_STORE_TROUBLE)
    log.info("files can be stored again", extra={"action": "file_store_back"})
