"""Who has changed what: an entry for each change that an operator makes, in a Redis stream; no secret is in it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from redis import Redis

from shared import keys
from shared.redis_connection.client import decode_hash

#: Entries kept.
MAX_ENTRIES = 10_000
PAGE_SIZE = 500


class AuditEntry(BaseModel):
    """One change."""

    id: str
    #: Seconds since the epoch.
    time: float
    #: `token <id>` of the admin API, or `command line`.
    who: str
    #: What was done, e.g. `key.update`.
    action: str
    #: Of what: an id or a name.
    target: str
    #: What was set.
    details: dict[str, Any]


class AuditLog:
    """Writes and reads the audit log."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def record(self, actor: str, action: str, target: str, details: Mapping[str, Any] | None = None) -> None:
        """Notes a change that was made."""
        entry = {"who": actor, "action": action, "target": target, "details": json.dumps(details or {}, default=str)}
        self._redis.xadd(keys.AUDIT_LOG, entry, maxlen=MAX_ENTRIES, approximate=True)

    def read_newest_first(self, before: str = "") -> Iterator[AuditEntry]:
        """The entries, those before an id if one is given."""
        top = f"({before}" if before else "+"
        while page := self._redis.xrevrange(keys.AUDIT_LOG, top, "-", count=PAGE_SIZE):
            for id_, values in page:
                found = decode_hash(values)
                at = int(id_.partition(b"-")[0]) / 1000
                yield AuditEntry(**{**found, "id": id_.decode(), "time": at, "details": json.loads(found["details"])})
            top = f"({page[-1][0].decode()}"
