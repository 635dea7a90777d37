"""Audit log of operators' changes, kept in a Redis stream. Entries contain no secrets."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from redis import Redis

from shared import keys
from shared.api_keys.admin_tokens import FIRST_TOKEN_ID, AdminTokens
from shared.observability.event_log import record_operator_event
from shared.redis_connection.client import decode_hash

#: Approximate number of entries kept.
MAX_ENTRIES = 10_000
PAGE_SIZE = 500
#: Characters of an entry's details, beyond which only names of fields are kept; such names; characters of a target.
MAX_DETAILS_LENGTH, MAX_FIELD_NAMES, MAX_TARGET_LENGTH = 4000, 50, 200


class AuditEntry(BaseModel):
    """One change made by an operator."""

    id: str
    #: Seconds since the epoch.
    time: float
    #: `token <id>` of the admin API, `command line`, `settings`, or `address <address>` for a refused login.
    who: str
    #: The change, e.g. `key.update`.
    action: str
    #: Id or name of the changed object.
    target: str
    #: The new values.
    details: dict[str, Any]


class AuditLog:
    """Writes and reads the audit log."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def record(self, actor: str, action: str, target: str, details: Mapping[str, Any] | None = None) -> None:
        """`actor` is stored as the entry's `who`."""
        encoded = json.dumps(details or {}, default=str)
        if len(encoded) > MAX_DETAILS_LENGTH:
            encoded = json.dumps({"fields": sorted(details or {})[:MAX_FIELD_NAMES], "length": len(encoded)})
        entry = {"who": actor, "action": action, "target": target[:MAX_TARGET_LENGTH], "details": encoded}
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.xadd(keys.AUDIT_LOG, entry, maxlen=MAX_ENTRIES, approximate=True)
            record_operator_event(pipe, actor, action, entry["target"])
            pipe.execute()

    def read_newest_first(self, before: str = "") -> Iterator[AuditEntry]:
        """Yields all entries, or those older than the id `before`, reading page by page."""
        upper_bound = f"({before}" if before else "+"
        while page := self._redis.xrevrange(keys.AUDIT_LOG, upper_bound, "-", count=PAGE_SIZE):
            for id_, values in page:
                fields = decode_hash(values)
                time = int(id_.partition(b"-")[0]) / 1000
                details = json.loads(fields["details"])
                yield AuditEntry(**{**fields, "id": id_.decode(), "time": time, "details": details})
            upper_bound = f"({page[-1][0].decode()}"


def store_configured_token(redis: Redis, configured: str) -> None:
    """Stores FARM_ADMIN_TOKEN, and records it when it replaces another token."""
    if AdminTokens(redis).store_configured(configured):
        AuditLog(redis).record("settings", "token.replace", FIRST_TOKEN_ID, {"setting": "FARM_ADMIN_TOKEN"})
