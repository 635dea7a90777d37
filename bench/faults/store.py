"""Rows in which Redis or connections to it fail."""

import time

from bench.farm import run_farm
from bench.faults.injection import in_background
from bench.faults.invariants import check_responses
from bench.faults.scale import FaultScale, busy_share, run_streams
from bench.measurement import Measurement, at_least, exactly, unbounded
from bench.outcome import CORRECT


def measure_killed_redis(scale: FaultScale) -> list[Measurement]:
    """kill -9 of Redis, restarted after 3 s: 95 % of the streams are complete, full rate again within 5 s."""
    row = "killed Redis"
    restarts: list[float] = []
    with run_farm(scale.accounts, *scale.pace, FARM_WORKER_PROCESSES="2", WEB_CONCURRENCY="2") as farm:

        def kill() -> None:
            time.sleep(scale.seconds / 3)
            farm.redis.kill()
            time.sleep(3)
            farm.redis.start()
            restarts.append(time.time())

        with in_background(kill):
            result = run_streams(farm, scale)
        since = restarts[0] - result.started_at + 5
        return [
            *check_responses(row, farm, result, "error event", "status 5"),
            at_least(row, "share of the requests that were whole", len(result.end_times) / len(result.records), 0.95),
            at_least(
                row,
                "share of the accounts' time, from 5 s after it was back",
                busy_share(result, scale, scale.accounts, since),
                0.95,
            ),
            unbounded(row, f"errors {dict(result.errors) or ''}".strip(), sum(result.errors.values())),
        ]


def measure_slow_redis(scale: FaultScale) -> list[Measurement]:
    """Redis is paused: every stream is complete."""
    row = "slow Redis"
    with run_farm(scale.accounts, *scale.pace, FARM_WORKER_PROCESSES="2", WEB_CONCURRENCY="2") as farm:

        def pause() -> None:
            time.sleep(scale.seconds / 3)
            farm.redis.client.client_pause(int(scale.silence * 1000))

        with in_background(pause):
            result = run_streams(farm, scale)
        return [*check_responses(row, farm, result), unbounded(row, "answers", len(result.end_times))]


def measure_full_redis(scale: FaultScale) -> list[Measurement]:
    """Redis is out of memory for 3 s: new requests get a clean 503, and every running stream is complete."""
    row = "full Redis"
    with run_farm(scale.accounts, *scale.pace, FARM_WORKER_PROCESSES="2", WEB_CONCURRENCY="2") as farm:
        since = until = 0.0

        def fill() -> None:
            nonlocal since, until
            time.sleep(scale.seconds / 3)
            since = time.time()
            farm.redis.client.config_set("maxmemory", "1mb")
            time.sleep(3)
            farm.redis.client.config_set("maxmemory", "0")
            until = time.time()

        with in_background(fill):
            result = run_streams(farm, scale)
        refused = [record for record in result.records if record.outcome != CORRECT]
        outside = [record for record in refused if not since - 1 < result.started_at + record.ended < until + 1]
        return [
            *check_responses(row, farm, result, "status 503 store_unavailable"),
            exactly(row, "requests refused before or after", len(outside)),
            exactly(row, "tracebacks in the log", farm.read_log().count("Traceback")),
            unbounded(row, "requests refused meanwhile", len(refused)),
            unbounded(row, "answers", len(result.end_times)),
        ]


def measure_killed_pubsub(scale: FaultScale) -> list[Measurement]:
    """Pub/sub connections killed 20 times: every stream is complete."""
    row = "killed pub/sub"
    with run_farm(scale.accounts, *scale.pace, FARM_WORKER_PROCESSES="2", WEB_CONCURRENCY="2") as farm:

        def kill() -> None:
            for _ in range(20):
                time.sleep(scale.seconds / 22)
                farm.redis.client.client_kill_filter(_type="pubsub")

        with in_background(kill):
            result = run_streams(farm, scale)
        return [
            *check_responses(row, farm, result),
            unbounded(row, "answers", len(result.end_times)),
            unbounded(row, "frames sent again", farm.read_metric("farm_frames_replayed_total")),
        ]
