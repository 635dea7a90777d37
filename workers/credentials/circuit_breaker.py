"""A circuit breaker per pool, so that an upstream outage neither cools its credentials nor fails the queued requests.

Closed: opens after consecutive faults of the upstream, on several credentials and for several requests; not while all
are one API key's and others are served, because then its requests are at fault.
Open: no worker of the pool takes a job, in any process, and requests wait. From time to time one worker takes a job as
the probe. Any response closes the breaker; a fault keeps it open, with a longer backoff each time. A probe does not
count as an attempt of its request.

The shared state is `farm:breaker:<pool>` in Redis, which each process reads once a second. Source of the pattern:
M. Nygard, "Release It!".
"""

import logging
import random
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis

from shared import clock, keys, names
from shared.backoff import compute_backoff
from shared.observability.counters import Counters

log = logging.getLogger("farm.breaker")
#: Consecutive faults that open the breaker, and on how many credentials (or on all, if fewer) and requests at least.
FAULTS_TO_OPEN = 5
MIN_CREDENTIALS = 3
MIN_REQUESTS = 2
#: Seconds for which a served API key counts as served: its next request may take that long to start.
SERVED_SECONDS = 60.0
#: Requests with faults, and served API keys, that are remembered.
MAX_REMEMBERED = 1000
#: Faults that the event of an opening tells.
MAX_TOLD = 20
#: Seconds until the first probe; doubled with each failed one, up to the maximum.
PROBE_BACKOFF_SECONDS, MAX_PROBE_BACKOFF_SECONDS = 1.0, 10.0
#: Seconds after which a probe's lock expires unless it is renewed.
PROBE_TTL_SECONDS = 10.0
#: Seconds after which an open breaker expires in Redis if no process updates it.
OPEN_TTL_SECONDS = 3600


@dataclass(frozen=True)
class Fault:
    """An attempt that the upstream has failed."""

    #: Seconds since the epoch.
    time: float
    credential_id: str
    reason: str


class CircuitBreaker:
    """One process's view of a pool's breaker."""

    def __init__(self, redis: Redis, pool: str, process_id: str, counters: Counters) -> None:
        self._redis = redis
        self._pool = pool
        self._process_id = process_id
        self._counters = counters
        #: Since the last success: request -> its faults, and request -> its API key.
        self._faults: dict[str, list[Fault]] = {}
        self._keys: dict[str, str] = {}
        #: API key -> when a request of it was served last, by the monotonic clock.
        self._served_at: dict[str, float] = {}
        self._failed_probes = 0
        self._probe_at = 0.0
        self._changed_at = 0.0
        self._opened_at = 0.0
        self.is_open = False
        #: The credential whose worker is the probe; '' for none in this process.
        self.probing_credential = ""

    @property
    def has_faults(self) -> bool:
        """Whether a success would change anything."""
        return self.is_open or bool(self._faults)

    def allows(self, credential_id: str) -> bool:
        """Whether the credential's worker may take a job."""
        return not self.is_open or self.probing_credential == credential_id

    @property
    def opened_at(self) -> float:
        """When it opened last, seconds since the epoch; 0 for never."""
        return self._opened_at

    # Reported by workers

    def record_fault(self, credential_id: str, request_id: str, reason: str, worker_count: int, key: str = "") -> None:
        """Records a fault of the upstream; opens the breaker, or keeps it open if the probe has failed.

        `worker_count`: how many workers of the pool run in this process. `key`: the request's API key.
        """
        if self.is_open:
            if self.probing_credential == credential_id:
                self._failed_probes += 1
                fields = self._log_fields("breaker_probed", reason)
                fields |= {"credential_id": credential_id, "request_id": request_id}
                log.info("the upstream is still down", extra=fields)
                self._write_open(reason)
            return
        self._faults.setdefault(request_id, []).append(Fault(clock.now(), credential_id, reason))
        self._keys[request_id] = key
        if len(self._faults) > MAX_REMEMBERED:
            self.forget_request(next(iter(self._faults)))
        if self._should_open(worker_count):
            self._failed_probes = 0
            self._opened_at = clock.now()
            self._counters.increment("breaker_opened", names.configured_pool(self._pool), reason)
            opening: dict[str, Any] = {**self._log_fields("breaker_opened", reason), "faults": self._list_faults()}
            log.error("the upstream is down: no job is taken", extra=opening)
            self._write_open(reason)

    def _list_faults(self) -> list[dict[str, Any]]:
        """The latest faults, the oldest first, as the event of the opening has them."""
        faults = [(fault, request_id) for request_id, failed in self._faults.items() for fault in failed]
        return [
            {"t": round(fault.time, 3), "credential_id": fault.credential_id, "request_id": id_, "reason": fault.reason}
            for fault, id_ in sorted(faults, key=lambda each: each[0].time)[-MAX_TOLD:]
        ]

    def _should_open(self, worker_count: int) -> bool:
        credentials = [fault.credential_id for failed in self._faults.values() for fault in failed]
        return (
            len(credentials) >= FAULTS_TO_OPEN
            and len(set(credentials)) >= min(MIN_CREDENTIALS, worker_count)
            and len(self._faults) >= MIN_REQUESTS
            and not (len(set(self._keys.values())) == 1 and self.are_others_served(self._keys.values()))
        )

    def forget_request(self, request_id: str) -> None:
        """The request is at fault itself, and says nothing about the upstream."""
        self._faults.pop(request_id, None)
        self._keys.pop(request_id, None)

    def has_faults_of_others(self, key: str) -> bool:
        """Whether requests of other API keys have met faults too since the last success."""
        return any(other != key for other in self._keys.values())

    def record_served(self, key: str) -> None:
        """A request of this API key was served."""
        self._served_at[key] = time.monotonic()
        if len(self._served_at) > MAX_REMEMBERED:
            del self._served_at[min(self._served_at, key=self._served_at.__getitem__)]

    def are_others_served(self, api_keys: Collection[str]) -> bool:
        """Whether requests of API keys other than these have been served lately."""
        since = time.monotonic() - SERVED_SECONDS
        return any(at > since for key, at in self._served_at.items() if key not in api_keys)

    def mark_open(self) -> None:
        """Opens this view, because Redis has refused a job: another process opened the breaker. `sync` completes it."""
        if not self.is_open:
            self.is_open, self._opened_at, self._probe_at = True, clock.now(), clock.now() + PROBE_BACKOFF_SECONDS

    def record_success(self, attempted_at: float) -> None:
        """Closes the breaker: the upstream has responded, with whatever status.

        `attempted_at`: when the attempt started, seconds since the epoch. An attempt from before the outage is ignored,
        because its success says nothing about the upstream now.
        """
        if self.is_open and attempted_at < self._opened_at:
            return
        self._reset_faults()
        if not self.is_open:
            return
        if self._redis.delete(keys.breaker(self._pool), keys.probe(self._pool)):
            log.warning("the upstream is back", extra=self._log_fields("breaker_closed"))
        # Only after Redis: turn.lua would still refuse a job with an open breaker.
        self.is_open, self.probing_credential = False, ""
        self._changed_at = time.monotonic()

    def _reset_faults(self) -> None:
        self._faults.clear()
        self._keys.clear()

    def _write_open(self, reason: str) -> None:
        self.is_open, self.probing_credential = True, ""
        backoff = compute_backoff(PROBE_BACKOFF_SECONDS, MAX_PROBE_BACKOFF_SECONDS, self._failed_probes)
        self._probe_at = clock.now() + backoff * random.uniform(0.75, 1.25)
        self._changed_at = time.monotonic()
        record = {"probe_at": self._probe_at, "failed_probes": self._failed_probes, "reason": reason}
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(keys.breaker(self._pool), mapping=record)
            pipe.hsetnx(keys.breaker(self._pool), "since", clock.now())
            pipe.expire(keys.breaker(self._pool), OPEN_TTL_SECONDS)
            pipe.delete(keys.probe(self._pool))
            pipe.execute()

    # Called by the worker process

    def sync(self, record: dict[str, str], read_at: float) -> None:
        """Takes over the record in Redis, {} when the breaker is closed.

        `read_at`: when it was requested, by the monotonic clock. A record from before our last change is ignored.
        """
        if read_at < self._changed_at:
            return
        if self.is_open and not record:
            self._reset_faults()
        if record and not self.is_open:
            self._opened_at = clock.now()
        self.is_open = bool(record)
        if not record:
            self.probing_credential = ""
            return
        self._probe_at = float(record.get("probe_at", 0))
        self._failed_probes = int(record.get("failed_probes", 0))

    def assign_probe(self, eligible: Collection[str], idle: Sequence[str]) -> str:
        """Renews the lock of the current probe, or assigns a new one.

        The current probe stays while it is in `eligible`; a new one is the first of `idle`, if no other process has a
        probe. Returns the credential of a new probe, else ''.
        """
        if not self.is_open or clock.now() < self._probe_at:
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
