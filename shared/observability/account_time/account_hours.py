"""What each credential's workers did, in seconds by the hour, for a day.

A field of an hour is the letter of a state (tape.LETTERS) and a credential id. Whole seconds are written, once a
minute; what a process that is killed had not written is lost.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from redis import Redis

from shared import clock, keys
from shared.observability.tape import LETTERS
from shared.redis_connection.client import register_script

HOUR_SECONDS = 3600
#: Hours that can be read, and seconds for which one is kept after its last write.
HOURS, TTL_SECONDS = 24, 26 * HOUR_SECONDS
#: Fields per call of the script.
BATCH_FIELDS = 500
STATES = {letter: state for state, letter in LETTERS.items()}
#: State -> seconds.
Seconds = Mapping[str, float]


class AccountHours:
    """The seconds of one worker process that are not written yet."""

    def __init__(self, redis: Redis) -> None:
        self._add_script = register_script(redis, Path(__file__).with_name("add_account_seconds.lua"))
        #: Hour -> field -> seconds.
        self._gains: defaultdict[int, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))

    def add(self, credential_id: str, state: str, seconds: float) -> None:
        hour = int(clock.now()) // HOUR_SECONDS * HOUR_SECONDS
        self._gains[hour][LETTERS[state] + credential_id] += seconds

    def flush(self) -> None:
        """Writes whole seconds, and keeps the rest. After a RedisError, which is raised, some may be missing."""
        gains, self._gains = self._gains, defaultdict(lambda: defaultdict(float))
        current = max(gains, default=0)
        for hour, fields in gains.items():
            for field, seconds in fields.items():
                if rest := seconds % 1:
                    self._gains[current][field] += rest
            whole = [(field, int(seconds)) for field, seconds in fields.items() if seconds >= 1]
            for first in range(0, len(whole), BATCH_FIELDS):
                batch = [part for pair in whole[first : first + BATCH_FIELDS] for part in pair]
                self._add_script(keys=[keys.account_seconds(hour)], args=[TTL_SECONDS, *batch])


def list_hours(hours: int = HOURS) -> list[int]:
    """The first seconds of the last hours, the present one included, the oldest first."""
    present = int(clock.now()) // HOUR_SECONDS * HOUR_SECONDS
    return [present - HOUR_SECONDS * ago for ago in reversed(range(hours))]


def read_account_hours(redis: Redis, hours: Sequence[int]) -> list[dict[str, dict[str, float]]]:
    """For each hour: credential id -> state -> seconds."""
    with redis.pipeline(transaction=False) as pipe:
        for hour in hours:
            pipe.hgetall(keys.account_seconds(hour))
        stored = pipe.execute()
    found: list[dict[str, dict[str, float]]] = []
    for fields in stored:
        by_credential: dict[str, dict[str, float]] = {}
        for field, seconds in fields.items():
            name = field.decode()
            by_credential.setdefault(name[1:], {})[STATES.get(name[0], "")] = float(seconds)
        found.append(by_credential)
    return found


def read_hours_of(redis: Redis, credential_id: str, hours: Sequence[int]) -> list[dict[str, float]]:
    """For each hour: what the workers of one credential did, state -> seconds."""
    fields = [letter + credential_id for letter in STATES]
    with redis.pipeline(transaction=False) as pipe:
        for hour in hours:
            pipe.hmget(keys.account_seconds(hour), fields)
        stored = pipe.execute()
    return [
        {state: float(seconds) for state, seconds in zip(STATES.values(), values, strict=True) if seconds}
        for values in stored
    ]


def compute_busy_share(seconds: Seconds) -> float | None:
    """Which share of a credential's time its workers were busy; None when it had none."""
    total = sum(seconds.values())
    return seconds.get("busy", 0.0) / total if total else None
