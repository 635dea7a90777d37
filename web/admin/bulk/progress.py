"""The progress of operations on many credentials, in Redis, so that every front can tell it."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from redis import Redis

from shared import clock, keys
from shared.errors import NotFound
from shared.redis_connection.client import decode_hash

#: Seconds for which the result is kept; seconds without progress after which the front that ran it has ended.
TTL_SECONDS, SILENCE_SECONDS = 86_400, 120.0
#: Prefix of the fields that count outcomes; characters of an outcome; different ones that are told apart.
OUTCOME, MAX_OUTCOME_LENGTH, MAX_OUTCOMES = "outcome:", 200, 50
OTHER = "other errors"


@dataclass(frozen=True)
class Progress:
    """How far an operation is."""

    id: str
    action: str
    state: str
    total: int
    done: int
    outcomes: dict[str, int]
    started_at: float
    updated_at: float


class ProgressStore:
    """Keeps the progress of operations."""

    def __init__(self, redis: Redis) -> None:
        self.redis = self._redis = redis

    def begin(self, action: str, total: int) -> str:
        """Returns the operation's id."""
        operation, now = secrets.token_hex(6), clock.now()
        fields = {"action": action, "total": total, "state": "running", "started_at": now, "updated_at": now}
        with self._redis.pipeline() as pipe:
            pipe.hset(keys.bulk_operation(operation), mapping=fields)
            pipe.expire(keys.bulk_operation(operation), TTL_SECONDS)
            pipe.execute()
        return operation

    def record(self, operation: str, results: Mapping[str, str]) -> bool:
        """Keeps what has become of some credentials, by id; returns whether to go on, False if it was cancelled."""
        name = keys.bulk_operation(operation)
        known = {field for field in decode_hash(self._redis.hgetall(name)) if field.startswith(OUTCOME)}
        with self._redis.pipeline() as pipe:
            for credential_id, outcome in results.items():
                field = OUTCOME + outcome[:MAX_OUTCOME_LENGTH]
                field = field if field in known or len(known) < MAX_OUTCOMES else OUTCOME + OTHER
                known.add(field)
                pipe.hincrby(name, field, 1)
                pipe.hset(keys.bulk_results(operation), credential_id, field.removeprefix(OUTCOME))
            pipe.expire(keys.bulk_results(operation), TTL_SECONDS)
            pipe.hset(name, "updated_at", clock.now())
            pipe.hget(name, "state")
            return bool(pipe.execute()[-1] == b"running")

    def list_results(self, operation: str, outcome: str = "") -> dict[str, str]:
        """Credential id -> what has become of it, of those with that outcome ('' for all). Raises NotFound."""
        self.get(operation)
        results = decode_hash(self._redis.hgetall(keys.bulk_results(operation)))
        return {id_: found for id_, found in results.items() if outcome in ("", found)}

    def end(self, operation: str, state: str) -> bool:
        """Ends a running operation as `done` or `cancelled`; False if it does not run."""
        name = keys.bulk_operation(operation)
        if self._redis.hget(name, "state") != b"running":
            return False
        self._redis.hset(name, mapping={"state": state, "updated_at": clock.now()})
        return True

    def get(self, operation: str) -> Progress:
        """Raises NotFound."""
        fields = decode_hash(self._redis.hgetall(keys.bulk_operation(operation)))
        if not fields:
            raise NotFound(f"no operation {operation!r}")
        outcomes = {
            name.removeprefix(OUTCOME): int(count) for name, count in fields.items() if name.startswith(OUTCOME)
        }
        updated_at, state = float(fields["updated_at"]), fields["state"]
        if state == "running" and clock.now() - updated_at > SILENCE_SECONDS:
            state = "interrupted"
        return Progress(
            id=operation,
            action=fields["action"],
            state=state,
            total=int(fields["total"]),
            done=sum(outcomes.values()),
            outcomes=outcomes,
            started_at=float(fields["started_at"]),
            updated_at=updated_at,
        )
