"""The row in which the primary of a replicated Redis is killed, again and again."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from bench.farm import run_farm
from bench.faults.injection import in_background
from bench.faults.invariants import check_responses
from bench.faults.scale import WARM_UP_SECONDS, FaultScale, busy_share, run_streams
from bench.measurement import Measurement, at_least, exactly, unbounded
from bench.replicated_redis import ReplicatedRedis, run_replicated_redis

#: Seconds after a promotion from which the farm is at its full rate, and for which that is measured.
RECOVERY_SECONDS, MEASURED_SECONDS = 10.0, 5.0
#: Length of the load before the first kill.
HEALTHY_SECONDS = WARM_UP_SECONDS + MEASURED_SECONDS
#: Time from a promotion to the next kill, and that of a failover itself.
CYCLE_SECONDS = RECOVERY_SECONDS + MEASURED_SECONDS + 7.0
#: Text events per stream, few enough that two slow cores have time left for the failover.
MAX_PIECES = 20
#: Fronts, and worker processes.
PROCESSES = 2
#: All of them, and the token refresher.
WATCHERS = 2 * PROCESSES + 1
#: Time that all processes have to ask a sentinel.
WATCH_SECONDS = 30.0


def measure_failover(scale: FaultScale) -> list[Measurement]:
    """The primary is killed ten times while tokens rotate: none is lost, no stream is short, full rate within 10 s."""
    row = "failover"
    scale = replace(scale, pieces=min(scale.pieces, MAX_PIECES))
    arguments = (*scale.pace, "--access-ttl", "4", "--rotate")
    promotions: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="farm-bench-") as home,
        run_replicated_redis(Path(home)) as redis,
        run_farm(
            scale.accounts,
            *arguments,
            REDIS_URL=redis.farm_url,
            FARM_WAIT_REPLICAS="1",
            FARM_WORKER_PROCESSES=str(PROCESSES),
            WEB_CONCURRENCY=str(PROCESSES),
            FARM_REFUSAL_PATIENCE="3",
        ) as farm,
    ):
        with in_background(lambda: kill_primaries(redis, scale, promotions)):
            result = run_streams(farm, scale, seconds=scale.failovers * CYCLE_SECONDS + HEALTHY_SECONDS)
        before, *after = [
            busy_share(result, scale, scale.accounts, since, since + MEASURED_SECONDS)
            for since in (
                WARM_UP_SECONDS,
                *(promoted - result.started_at + RECOVERY_SECONDS for promoted in promotions),
            )
        ]
        states, denials = farm.read_pool()["credentials"], redis.list_denials()
        never_waited = int(not redis.count_waits_for_replicas())
        return [
            *check_responses(row, farm, result, "error event", "status 5", "status 4"),
            exactly(row, f"accounts lost {states}", scale.accounts - states["active"] - states.get("cooling", 0)),
            exactly(row, "promotions", len(promotions), scale.failovers),
            exactly(row, "processes that watch the sentinels", await_watchers(redis), WATCHERS),
            exactly(row, "primaries that were not asked to wait for a replica", never_waited),
            exactly(row, f"rights missing {denials or ''}".strip(), len(denials)),
            at_least(
                row, "accounts' time in use from 10 s after a promotion, worst, to before", min(after) / before, 0.95
            ),
            unbounded(row, "share of the accounts' time before", before),
            unbounded(row, f"errors {dict(result.errors) or ''}".strip(), sum(result.errors.values())),
            unbounded(row, "answers", len(result.end_times)),
            unbounded(row, "refreshes", farm.upstream.read_counters()["refreshes"]),
            unbounded(row, "tokens used before a replica held them", farm.read_metric("farm_tokens_not_durable_total")),
        ]


def kill_primaries(redis: ReplicatedRedis, scale: FaultScale, promotions: list[float]) -> None:
    """Kills primaries; each starts again as itself, until the sentinels make it a replica of the present one."""
    time.sleep(HEALTHY_SECONDS)
    for _ in range(scale.failovers):
        redis.wait_until_complete()
        killed = redis.kill_primary()
        promotions.append(time.time())
        killed.start()
        time.sleep(RECOVERY_SECONDS + MEASURED_SECONDS)


def await_watchers(redis: ReplicatedRedis) -> int:
    """How many processes watch the sentinels, as soon as all of them do."""
    deadline = time.monotonic() + WATCH_SECONDS
    while (count := redis.count_watchers()) != WATCHERS and time.monotonic() < deadline:
        time.sleep(0.2)
    return count
