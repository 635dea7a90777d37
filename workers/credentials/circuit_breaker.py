"""One circuit breaker per pool: an upstream that is down must not blame its accounts, nor eat the queue.

Closed: faults of the upstream in a row, on several accounts and for several requests, without one answer in between,
open it. Open: no worker of the pool takes a job, in any process, and requests wait. From time to time one worker of all
takes one (the probe). Its answer closes the breaker; its fault keeps it open, for longer each time. An attempt of a
probe does not count against its request.

The truth is `farm:breaker:<pool>` in Redis; each process reads it once a second. Source of the pattern: M. Nygard,
"Release It!".
"""

import logging
import random
import time
from collections.abc import Collection, Sequence

from redis import Redis

from shared import keys, names
from shared.observability.counters import Counters

log = logging.getLogger("farm.breaker")
#: Faults in a row that open it, of so many different credentials (or as many as there are).
FAULTS_TO_OPEN = 5
MIN_CREDENTIALS = 3
MIN_REQUESTS = 2
#: Seconds until the first probe; doubled with each that fails, up to the longest.
PROBE_BACKOFF_SECONDS, MAX_PROBE_BACKOFF_SECONDS = 1.0, 10.0
#: Seconds that a probe's token lives without being renewed.
PROBE_TTL_SECONDS = 10.0
#: Seconds that an open breaker is remembered when no process tends it.
OPEN_TTL_SECONDS = 3600


class CircuitBreaker:
    """The breaker of one pool, as one process sees it."""

    def __init__(self, redis: Redis, pool: str, process_id: str, counters: Counters) -> None:
        self._redis = redis
        self._pool = pool
        self._process_id = process_id
        self._counters = counters
        self._credentials: set[str] = set()
        self._requests: set[str] = set()
        self._faults = 0
        self._failed_probes = 0
        self._probe_at = 0.0
        self._written_at = 0.0
        self._opened_at = 0.0
        self.is_open = False
        #: The credential whose worker may take one job; '' for none.
        self.probing_credential = ""

    @property
    def has_faults(self) -> bool:
        """Whether an answer would be news."""
        return self.is_open or self._faults > 0

    def allows(self, credential_id: str) -> bool:
        """Whether that credential's worker may take a job."""
        return not self.is_open or self.probing_credential == credential_id

    # What the workers tell

    def record_fault(self, credential_id: str, request_id: str, reason: str, worker_count: int) -> None:
        """The upstream failed for one of so many workers."""
        self._faults += 1
        self._credentials.add(credential_id)
        self._requests.add(request_id)
        if self.is_open:
            if self.probing_credential == credential_id:
                self._failed_probes += 1
                self._keep_open(reason)
            return
        is_widespread = (
            len(self._credentials) >= min(MIN_CREDENTIALS, worker_count) and len(self._requests) >= MIN_REQUESTS
        )
        if self._faults >= FAULTS_TO_OPEN and is_widespread:
            self._failed_probes = 0
            self._opened_at = time.time()
            self._counters.increment("breaker_opened", names.configured_pool(self._pool), reason)
            log.error("the upstream is down: no job is taken", extra=self._log_fields("breaker_opened", reason))
            self._keep_open(reason)

    def mark_open(self) -> None:
        """A job could not be begun: another process has opened it, and the next look tells more."""
        if not self.is_open:
            self.is_open, self._opened_at, self._probe_at = True, time.time(), time.time() + PROBE_BACKOFF_SECONDS

    def record_success(self, attempted_at: float) -> None:
        """The upstream answered, whatever it said, what it was asked at that time (seconds since the epoch).

        What was asked before it went down, and ends well, says nothing of how it is now.
        """
        if self.is_open and attempted_at < self._opened_at:
            return
        if self._faults:
            self._reset()
        if not self.is_open:
            return
        if self._redis.delete(keys.breaker(self._pool), keys.probe(self._pool)):
            log.warning("the upstream is back", extra=self._log_fields("breaker_closed"))
        # Only now, because a job that is begun while Redis still has it would find it open.
        self.is_open, self.probing_credential = False, ""
        self._written_at = time.monotonic()

    def _reset(self) -> None:
        self._faults = 0
        self._credentials.clear()
        self._requests.clear()

    def _keep_open(self, reason: str) -> None:
        self.is_open, self.probing_credential = True, ""
        pause = min(MAX_PROBE_BACKOFF_SECONDS, PROBE_BACKOFF_SECONDS * 2**self._failed_probes) * random.uniform(
            0.75, 1.25
        )
        self._probe_at = time.time() + pause
        self._written_at = time.monotonic()
        record = {"probe_at": self._probe_at, "failed_probes": self._failed_probes, "reason": reason}
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(keys.breaker(self._pool), mapping=record)
            pipe.hsetnx(keys.breaker(self._pool), "since", time.time())
            pipe.expire(keys.breaker(self._pool), OPEN_TTL_SECONDS)
            pipe.delete(keys.probe(self._pool))
            pipe.execute()

    # What the process tells

    def sync(self, record: dict[str, str], read_at: float) -> None:
        """What Redis had, asked for at that time; older than our own last word it counts for nothing."""
        if read_at < self._written_at:
            return
        if self.is_open and not record:
            self._reset()
        if record and not self.is_open:
            self._opened_at = time.time()
        self.is_open = bool(record)
        if not record:
            self.probing_credential = ""
            return
        self._probe_at = float(record.get("probe_at", 0))
        self._failed_probes = int(record.get("failed_probes", 0))

    def assign_probe(self, eligible: Collection[str], idle: Sequence[str]) -> str:
        """Keeps the probe of one that is able, or begins one with the first that is idle; returns whose is new."""
        if not self.is_open or time.time() < self._probe_at:
            return ""
        token, ttl_ms = f"{self._process_id}:{self.probing_credential}", int(PROBE_TTL_SECONDS * 1000)
        if self.probing_credential in eligible:
            if not self._redis.set(keys.probe(self._pool), token, px=ttl_ms, xx=True):
                self.probing_credential = ""
            return ""
        self.probing_credential = ""
        if not idle:
            return ""
        token = f"{self._process_id}:{idle[0]}"
        if self._redis.set(keys.probe(self._pool), token, px=ttl_ms, nx=True):
            self.probing_credential = idle[0]
        return self.probing_credential

    def _log_fields(self, action: str, reason: str = "") -> dict[str, str]:
        return {"action": action, "pool": self._pool, "reason": reason}
