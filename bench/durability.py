"""What the wait for the disk costs (WAITAOF): rotated refresh tokens, stored with it and without it by turns."""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from bench.farm import KillableRedis
from bench.measurement import Measurement, unbounded
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.observability.counters import Counters
from workers.credentials.durability import DurableWriter
from workers.credentials.leases import Lease, Leases
from workers.credentials.token_endpoint.token_response import TokenGrant
from workers.credentials.token_store import TokenStore

SCENARIO = "durability"
ACCOUNTS = 100
#: Tokens that are stored at the same time, as after a start.
AT_ONCE = 64
#: Rounds, in each of which every account stores a token both ways, first one after another and then at once.
ROUNDS = 4
#: Seconds that a granted access token is valid.
TOKEN_SECONDS = 3600.0


class ImmediateWriter(DurableWriter):
    """Writes without a wait."""

    def write(
        self, run_command: Callable[[Redis], object], on_stored: Callable[[], None] = lambda: None
    ) -> tuple[Any, str]:
        result = run_command(self._redis)
        on_stored()
        return result, ""


class Accounts:
    """Leased credentials that store one rotated token after another."""

    def __init__(self, redis: Redis) -> None:
        unsealer = Unsealer("a secret key of this measurement alone")
        unsealer.ensure_sealing_key(redis)
        tokens = [f"token-{number}-0" for number in range(ACCOUNTS)]
        ids = list(Credentials(redis).import_lines("default", tokens).new_ids)
        self._leases = Leases(redis, "bench")
        held = {lease.credential_id: lease for lease in self._leases.claim("default", ids, ACCOUNTS)}
        self._current: list[tuple[Lease, str]] = [(held[id_], token) for id_, token in zip(ids, tokens, strict=True)]
        self._redis = redis
        self._unsealer = unsealer
        self._rotations = 0

    def measure(self, *, waits: bool, threads: int) -> list[float]:
        """Stores a rotated token of each account; returns the milliseconds that each took."""
        self._leases.renew([lease for lease, _ in self._current])
        store = TokenStore(self._redis, self._unsealer, Counters())
        if not waits:
            store.durable_writer = ImmediateWriter(self._redis)
        self._rotations += 1

        def rotate(number: int) -> float:
            lease, token = self._current[number]
            rotated = f"token-{number}-{self._rotations}"
            started = time.perf_counter()
            store.store(lease, token, TokenGrant(f"access-{number}", TOKEN_SECONDS, rotated))
            elapsed = time.perf_counter() - started
            self._current[number] = lease, rotated
            return 1000 * elapsed

        # The first one asks what the server can do.
        rotate(0)
        self._rotations += 1
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(rotate, range(ACCOUNTS)))


def measure_durability(_: float) -> list[Measurement]:
    """Milliseconds to store a rotated refresh token, with the wait for the disk and without it."""
    measurements = []
    with run_store() as redis:
        accounts = Accounts(redis)
        for threads, manner in ((1, "one after another"), (AT_ONCE, f"{AT_ONCE} at once")):
            times: dict[bool, list[float]] = {True: [], False: []}
            for _round in range(ROUNDS):
                for waits in times:
                    times[waits] += accounts.measure(waits=waits, threads=threads)
            for waits, name in ((True, "on disk"), (False, "without the wait")):
                late = statistics.quantiles(times[waits], n=100)[-1]
                median = statistics.median(times[waits])
                measurements.append(unbounded(SCENARIO, f"ms, tokens {manner}: {name}, median", round(median, 2)))
                measurements.append(unbounded(SCENARIO, f"ms, tokens {manner}: {name}, p99", round(late, 2)))
    return measurements


@contextmanager
def run_store() -> Iterator[Redis]:
    """A server with the settings of the farm's private one, on this machine's disk."""
    folder = Path(tempfile.mkdtemp(prefix="farm-bench-"))
    server = KillableRedis(folder)
    try:
        yield server.client
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
