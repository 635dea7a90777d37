"""A circuit breaker per token endpoint, so that its outage or a wrong client id costs no credential.

For a pool of API keys, which the upstream itself accepts or refuses, it stands for the upstream.

Closed: opens when several credentials of the pool fail at the token endpoint within a minute, by whatever error, and
none is granted a token. Open: no refresh token is presented, no credential is declared dead, and credentials whose
access token is valid go on working. From time to time one credential is the probe, each time another one, because the
failed ones may all be revoked. The first grant closes the breaker.

The shared state is `farm:token-breaker:<pool>` in Redis, which each process reads once a second. The private
credentials of a pool share its token endpoint, and so its breaker.
"""

import logging
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from redis import Redis

from shared import clock, keys
from shared.backoff import compute_backoff
from shared.credentials.pool_rest import API_KEY_REFUSED
from shared.observability.counters import Counters
from shared.redis_connection.client import register_script

log = logging.getLogger("farm.breaker")
#: Failing credentials that open the breaker (all of a smaller pool, but at least two).
#: Seconds within which they fail.
MIN_CREDENTIALS, WINDOW_SECONDS = 3, 60
#: Seconds until the first probe; doubled with each failed one, up to the maximum.
PROBE_BACKOFF_SECONDS, MAX_PROBE_BACKOFF_SECONDS = 1.0, 15.0
#: Seconds after which a probe's lock expires; longer than a token request may take.
PROBE_TTL_SECONDS = 45.0
#: Seconds, for each worker of the pool in this process and at most, over which refreshes are spread after an outage.
SPREAD_SECONDS_PER_WORKER, MAX_SPREAD_SECONDS = 0.1, 5.0
#: Seconds after which an open breaker expires in Redis if no process updates it.
OPEN_TTL_SECONDS = 3600
ENDPOINT_FAILS = (
    "the token endpoint fails for several credentials and grants none (%s): it is probed, no credential is declared "
    "dead; if it lasts, check FARM_TOKEN_URL, FARM_CLIENT_ID and FARM_CLIENT_SECRET"
)
#: The same of a pool of API keys, which has no token endpoint.
API_KEYS_FAIL = (
    "the upstream refuses several API keys and accepts none (%s): each is tried again, and none is declared dead; if "
    "it lasts, check FARM_UPSTREAM_URL and the keys"
)


@dataclass(frozen=True)
class EndpointHistory:
    """What is known about the token endpoint after a failure. Times are seconds since the epoch, by Redis's clock."""

    #: Whether the breaker is open.
    is_open: bool
    now: float
    #: When it last granted a token to any credential of the pool; 0 for never.
    granted_at: float


class TokenBreaker:
    """One process's view of the breaker of a configured pool's token endpoint."""

    def __init__(self, redis: Redis, pool: str, process_id: str, counters: Counters) -> None:
        self._redis = redis
        self._pool = pool
        self._process_id = process_id
        self._counters = counters
        self._record_script = register_script(redis, Path(__file__).with_name("record_failure.lua"))
        self._probe_at = 0.0
        self._failed_probes = 0
        self._changed_at = 0.0
        #: Credential -> when it was last the probe, by the monotonic clock.
        self._probed_at: dict[str, float] = {}
        self.is_open = False
        #: The credential that is the probe; '' for none in this process.
        self.probing_credential = ""

    def retry_after(self, worker_count: int) -> float:
        """Seconds after which a credential looks again whether the breaker is closed; spread over the workers."""
        spread = random.uniform(0, min(MAX_SPREAD_SECONDS, SPREAD_SECONDS_PER_WORKER * worker_count))
        return min(MAX_PROBE_BACKOFF_SECONDS, max(PROBE_BACKOFF_SECONDS, self._probe_at - clock.now())) + spread

    # Reported by refreshes

    def record_failure(
        self, credential_id: str, reason: str, refused_at: float = 0.0, *, is_probe: bool = False
    ) -> EndpointHistory:
        """Records that a token request has failed; opens the breaker, or keeps it open if the probe has failed.

        `refused_at`: when the credential was refused before; 0 for never since its last grant. `is_probe`: whether the
        credential is the probe, in whichever worker process.
        """
        reply = self._record_script(
            keys=[
                *(keys.token_failures(self._pool), keys.token_granted(self._pool), keys.token_breaker(self._pool)),
                keys.credentials(self._pool),
            ],
            args=[
                credential_id,
                WINDOW_SECONDS,
                MIN_CREDENTIALS,
                PROBE_BACKOFF_SECONDS,
                reason,
                OPEN_TTL_SECONDS,
                refused_at,
            ],
        )
        state, now, granted_at = cast("list[Any]", reply)
        if state == 2:
            self._counters.increment("token_breaker_opened", self._pool, reason)
            log.error(
                API_KEYS_FAIL if reason == API_KEY_REFUSED else ENDPOINT_FAILS,
                reason,
                extra=self._log_fields("token_breaker_opened", reason),
            )
        if state and not self.is_open:
            self._mark_open()
        if state and is_probe:
            self._delay_probe(reason)
        return EndpointHistory(bool(state), float(now), float(granted_at or 0))

    def _mark_open(self) -> None:
        """Opens this view; `sync` completes it."""
        self.is_open, self._failed_probes = True, 0
        self._probe_at = clock.now() + PROBE_BACKOFF_SECONDS
        self._changed_at = time.monotonic()

    def _delay_probe(self, reason: str) -> None:
        self._failed_probes += 1
        backoff = compute_backoff(PROBE_BACKOFF_SECONDS, MAX_PROBE_BACKOFF_SECONDS, self._failed_probes)
        self._probe_at = clock.now() + backoff * random.uniform(0.75, 1.0)
        self._changed_at = time.monotonic()
        record = {"probe_at": self._probe_at, "failed_probes": self._failed_probes, "reason": reason}
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(keys.token_breaker(self._pool), mapping=record)
            pipe.hsetnx(keys.token_breaker(self._pool), "since", clock.now())
            pipe.expire(keys.token_breaker(self._pool), OPEN_TTL_SECONDS)
            pipe.execute()

    def record_grant(self) -> None:
        """Records that the endpoint has granted a token, which closes the breaker."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.time()
            pipe.delete(keys.token_breaker(self._pool))
            pipe.delete(keys.token_failures(self._pool))
            (seconds, microseconds), was_open, _ = pipe.execute()
        self._redis.set(keys.token_granted(self._pool), str(seconds + microseconds / 1e6))
        if was_open:
            log.warning(
                "the token endpoint grants tokens again, or the upstream accepts API keys",
                extra=self._log_fields("token_breaker_closed"),
            )
        self.is_open = False
        self._changed_at = time.monotonic()

    # Called by the worker process

    def sync(self, record: dict[str, str], read_at: float) -> None:
        """Takes over the record in Redis, {} when the breaker is closed.

        `read_at`: when it was requested, by the monotonic clock. A record from before our last change is ignored.
        """
        if read_at < self._changed_at:
            return
        self.is_open = bool(record)
        if record:
            self._probe_at = float(record.get("probe_at", 0))
            self._failed_probes = int(record.get("failed_probes", 0))
        else:
            self._probed_at.clear()

    def take_probe(self, credential_ids: Iterable[str]) -> str:
        """Makes one of the credentials the probe if one is due and no other process has one; '' for none.

        Each time it is the one whose last probe is the longest ago. `end_probe` must follow.
        """
        candidates = list(credential_ids)
        if not self.is_open or self.probing_credential or clock.now() < self._probe_at or not candidates:
            return ""
        random.shuffle(candidates)
        chosen = min(candidates, key=lambda credential_id: self._probed_at.get(credential_id, 0.0))
        lock, ttl_ms = f"{self._process_id}:{chosen}", int(PROBE_TTL_SECONDS * 1000)
        if not self._redis.set(keys.token_probe(self._pool), lock, px=ttl_ms, nx=True):
            return ""
        self._probed_at[chosen] = time.monotonic()
        self.probing_credential = chosen
        return chosen

    def end_probe(self) -> None:
        self.probing_credential = ""
        self._redis.delete(keys.token_probe(self._pool))

    def _log_fields(self, action: str, reason: str = "") -> dict[str, str]:
        return {"action": action, "pool": self._pool, "reason": reason}
