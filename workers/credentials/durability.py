"""Writes that are durable before they count: on Redis's disk, and held by FARM_WAIT_REPLICAS replicas."""

import logging
from collections.abc import Callable
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from shared import clock, keys
from shared.redis_connection.client import pin_connection

log = logging.getLogger("farm.tokens")
#: Milliseconds that Redis may take to write a rotated token to disk, and its replicas to take it over; and how often
#: that is waited for.
FSYNC_TIMEOUT_MS, FSYNC_TRIES = 3000, 5
#: Seconds between two probes of a worker process, and for which its report of them is kept.
PROBE_INTERVAL_SECONDS, REPORT_TTL_SECONDS = 10.0, 60
#: Failures that may pass.
TRANSIENT_FAILURES = ("slow", "replicas")
#: What a failure means for the operator: action in the log, remedy.
FAILURES = {
    "slow": ("slow_fsync", "its disk is too slow"),
    "no_aof": ("no_fsync", "switch its append-only file on (appendonly yes)"),
    "replicas": ("no_replicas", "FARM_WAIT_REPLICAS wants more replicas than take its writes over in time"),
}


class DurableWriter:
    """Waits for the durability of writes, and knows whether the last one was durable."""

    def __init__(self, redis: Redis, replicas: int = 0) -> None:
        """`replicas`: how many must hold a write. Waiting for them and the disk occupies a connection of `redis`."""
        self._redis = redis
        self._replicas = replicas
        self._supports_waitaof: bool | None = None
        #: `no_aof` when Redis has no append-only file, else ''; known once `_supports_waitaof` is.
        self._aof_failure = ""
        #: Why the last write may not be durable, '' when it is; since when, in seconds since the epoch.
        self._last_failure, self._changed_at = "", clock.now()

    def write(
        self, run_command: Callable[[Redis], object], on_stored: Callable[[], None] = lambda: None
    ) -> tuple[Any, str]:
        """Runs one command by `run_command(client)`, until it is durable, at most FSYNC_TRIES times.

        Calls `on_stored` once Redis has run it first. Returns its result, and why it may not be durable: a key of
        FAILURES, '' when it is. A Redis before 7.2 can't say when a write is on disk; it takes a second.
        """
        for attempt in range(FSYNC_TRIES):
            result, reason = self._write(run_command, on_stored if attempt == 0 else lambda: None)
            if reason not in TRANSIENT_FAILURES:
                break
            log.warning("a write is not durable yet (%s)", reason, extra={"action": FAILURES[reason][0]})
        reason = reason or self._aof_failure
        self._record(reason)
        return result, reason

    def probe(self, process_id: str) -> None:
        """Makes a durable write of the worker process's report (shared/observability/durability.py), then corrects it.

        So the state that operators see ends with its cause, and begins before a token meets it.
        """
        self._supports_waitaof = None
        self.write(self._report(process_id))
        with self._redis.pipeline(transaction=False) as pipe:
            self._report(process_id)(pipe)
            pipe.expire(keys.process(process_id), REPORT_TTL_SECONDS)
            pipe.execute()

    def _report(self, process_id: str) -> Callable[[Redis], object]:
        state = self._last_failure or ("confirmed" if self._can_wait_for_fsync() else "unconfirmed")
        report = {"durability": state, "durability_since": self._changed_at}
        return lambda client: client.hset(keys.process(process_id), mapping=report)

    def check(self) -> None:
        """Logs an error at start when Redis has no append-only file."""
        self._can_wait_for_fsync()
        self._record(self._aof_failure)

    def _list_waits(self) -> list[tuple[str | int, ...]]:
        """The commands that wait until what was written before on their connection is durable."""
        waits: list[tuple[str | int, ...]] = []
        if self._replicas:
            waits.append(("WAIT", self._replicas, FSYNC_TIMEOUT_MS))
        if self._can_wait_for_fsync():
            waits.append(("WAITAOF", 1, 0, FSYNC_TIMEOUT_MS))
        return waits

    def _write(self, run_command: Callable[[Redis], object], on_stored: Callable[[], None]) -> tuple[Any, str]:
        """The command's result, and why the waits failed, '' when they did not. All run on one connection."""
        waits = self._list_waits()
        with pin_connection(self._redis) as connection:
            result = run_command(connection)
            on_stored()
            replies = [run_wait(connection, wait) for wait in waits]
        failures = (
            find_durability_failure(wait[0], reply, self._replicas) for wait, reply in zip(waits, replies, strict=True)
        )
        return result, next(filter(None, failures), "")

    def _can_wait_for_fsync(self) -> bool:
        """Whether Redis has WAITAOF (7.2), which waits until a write is on disk; older ones fsync every second."""
        if self._supports_waitaof is None:
            version = str(self._redis.info("server")["redis_version"])
            self._aof_failure = "" if self._redis.info("persistence").get("aof_enabled", 1) else "no_aof"
            self._supports_waitaof = tuple(int(part) for part in version.split(".")[:2]) >= (7, 2)
        return self._supports_waitaof

    def _record(self, reason: str) -> None:
        """Records why a write may not be durable, '' when it is; logs a change."""
        if reason == self._last_failure:
            return
        self._last_failure, self._changed_at = reason, clock.now()
        if reason:
            message = "rotated refresh tokens are not safely stored (%s): a crash of Redis can lose credentials; %s"
            action, remedy = FAILURES[reason]
            log.error(message, reason, remedy, extra={"action": action})
        else:
            log.warning("rotated refresh tokens are safely stored again", extra={"action": "fsync_back"})


def run_wait(connection: Redis, wait: tuple[str | int, ...]) -> Any:
    """The reply, or the error by which Redis refuses the command."""
    try:
        return connection.execute_command(*wait)
    except ResponseError as error:
        return error


def find_durability_failure(command: str | int, reply: Any, replicas: int) -> str:
    """Why a write is not known to be durable, by the reply of WAIT or WAITAOF: `replicas`, `no_aof`, `slow`, or ''."""
    if command == "WAIT":
        if isinstance(reply, Exception):
            raise reply
        return "" if int(reply) >= replicas else "replicas"
    if isinstance(reply, Exception):
        return "no_aof"
    return "" if reply[0] else "slow"
