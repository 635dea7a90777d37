"""What is known of a credential beside its record: reads, writes, keeps the last test.

The hash `farm:activity:<id>` has these fields, and one for each slot of attempt_counts.py, named by its start (times in
seconds since the epoch):

| field | meaning |
| --- | --- |
| used_at | when its last attempt ended |
| failed_at, failed_outcome, failed_evidence | its last failed attempt or token request (evidence.py) |
| allowance | what its account has left (allowance.py) |
| test | the last test's result, without texts |
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis

from shared import clock, keys, names
from shared.credentials.activity.allowance import Allowance
from shared.credentials.activity.attempt_counts import NO_ATTEMPTS, RecentAttempts, SlotCounts, oldest_slot, sum_up
from shared.credentials.evidence import NO_EVIDENCE, Evidence, clean_code
from shared.parsing import parse_json_object, read_number
from shared.redis_connection.client import decode_hash, register_script

#: Credentials per call of the script, which takes Redis some 10 microseconds for each.
BATCH_SIZE = 50
#: Numbers of a test's result that are kept.
TEST_FIELDS = ("status", "refresh_ms", "first_byte_ms", "chat_ms")


@dataclass(frozen=True)
class LastFailure:
    """A failed attempt or token request."""

    at: float
    #: Outcome label of `attempts_total`.
    outcome: str
    evidence: Evidence = NO_EVIDENCE


@dataclass(frozen=True)
class LastTest:
    """The result of an operator's test, without texts."""

    at: float
    ok: bool
    #: Error code of whoever has failed, '' for none.
    code: str = ""
    #: HTTP status of the chat, or of the token endpoint's refusal; 0 when there was no response.
    status: int = 0
    refresh_ms: int = 0
    first_byte_ms: int = 0
    chat_ms: int = 0


@dataclass(frozen=True)
class Activity:
    """Times are seconds since the epoch, 0 for never."""

    used_at: float = 0.0
    #: Requests that its workers have now.
    in_flight: int = 0
    last_hour: RecentAttempts = NO_ATTEMPTS
    last_failure: LastFailure | None = None
    allowance: Allowance | None = None
    last_test: LastTest | None = None


@dataclass
class Gains:
    """What one credential has done since the last flush."""

    #: Field -> value; written again if the flush fails.
    fields: dict[str, Any] = field(default_factory=dict)
    #: Start of a slot -> what was counted in it.
    slots: dict[int, SlotCounts] = field(default_factory=dict)


class ActivityStore:
    """The activities of all credentials."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._record_script = register_script(redis, Path(__file__).with_name("record_activity.lua"))

    def record(self, gains: Mapping[str, Gains]) -> None:
        """Adds what the credentials, by id, have done."""
        ids = list(gains)
        for first in range(0, len(ids), BATCH_SIZE):
            batch = ids[first : first + BATCH_SIZE]
            self._record_script(
                keys=[key for id_ in batch for key in (keys.credential(id_), keys.activity(id_))],
                args=[oldest_slot(clock.now()), *(part for id_ in batch for part in encode_gains(gains[id_]))],
            )

    def keep_test(self, credential_id: str, result: Mapping[str, Any]) -> None:
        """Keeps the result of an operation `test` (workers/process/operation_runner.py), but none of its texts."""
        numbers = {name: int(result.get(name) or 0) for name in TEST_FIELDS}
        code = clean_code(result.get("code", ""))
        kept = {"at": clock.now(), "ok": bool(result.get("ok")), "code": code, **numbers}
        self.record({credential_id: Gains({"test": json.dumps(kept)})})

    def read(self, credentials: Sequence[tuple[str, str, str]], slots: Mapping[str, int]) -> list[Activity]:
        """The activities of credentials given by pool, id and the worker process that has them ('' for none).

        `slots`: configured pool -> slots per credential.
        """
        with self._redis.pipeline(transaction=False) as pipe:
            for pool, credential_id, _ in credentials:
                pipe.hgetall(keys.activity(credential_id))
                for slot in range(1, slots.get(names.configured_pool(pool), 1) + 1):
                    pipe.hget(keys.rq_worker(names.worker_name(pool, credential_id, slot)), "state")
            replies = iter(pipe.execute())
        now = clock.now()
        found = []
        for pool, _, owner in credentials:
            fields = decode_hash(next(replies))
            states = [next(replies) for _ in range(slots.get(names.configured_pool(pool), 1))]
            # Of a process that was killed RQ's records remain for minutes.
            found.append(build_activity(fields, states.count(b"busy") if owner else 0, now))
        return found


def encode_gains(gains: Gains) -> tuple[str, str]:
    """As record_activity.lua takes them."""
    fields = [str(part) for pair in gains.fields.items() for part in pair]
    slots = [counts.encode(start) for start, counts in gains.slots.items()]
    return json.dumps(fields), json.dumps(slots)


def build_activity(fields: Mapping[str, str], in_flight: int, now: float) -> Activity:
    """`fields` are those of the hash."""
    oldest = oldest_slot(now)
    slots = (SlotCounts.decode(value) for name, value in fields.items() if name.isdecimal() and int(name) >= oldest)
    return Activity(
        used_at=read_number(fields.get("used_at")),
        in_flight=in_flight,
        last_hour=sum_up(slots),
        last_failure=build_failure(fields),
        allowance=Allowance.decode(fields.get("allowance", "")),
        last_test=build_test(fields.get("test", "")),
    )


def build_failure(fields: Mapping[str, str]) -> LastFailure | None:
    at = read_number(fields.get("failed_at"))
    if not at:
        return None
    return LastFailure(at, fields.get("failed_outcome", ""), Evidence.decode(fields.get("failed_evidence", "")))


def build_test(stored: str) -> LastTest | None:
    values = parse_json_object(stored.encode()) if stored else {}
    if not values.get("at"):
        return None
    numbers = {name: int(read_number(values.get(name))) for name in TEST_FIELDS}
    return LastTest(read_number(values["at"]), bool(values.get("ok")), clean_code(values.get("code", "")), **numbers)
