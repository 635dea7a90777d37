"""Rows in which processes die while refresh tokens rotate, of which a used one revokes its account."""

import random
import time
from collections.abc import Callable

from bench.farm import MeasuredFarm, run_farm
from bench.faults.injection import in_background, kill_random_worker_process
from bench.faults.invariants import check_responses
from bench.faults.scale import FaultScale, run_streams
from bench.measurement import Measurement, at_least, exactly, unbounded
from bench.token_times import list_quantiles, read_token_times

#: Seconds between two kills, and the lifetime of the access tokens, with which the refresh tokens rotate.
KILL_INTERVAL_SECONDS, TOKEN_SECONDS = 3.0, 4
#: Seconds between a token response and a kill of the token refresher that can lose the rotated token, on a machine that
#: stalls.
LOSS_WINDOW_SECONDS = 1.4


def measure_killed_workers(scale: FaultScale) -> list[Measurement]:
    """Refresh tokens rotate every 4 s, kill -9 of one of three worker processes every 3 s: no credential is lost."""
    draw = random.Random(scale.seed)
    return measure_kills("rotation", scale, lambda farm: kill_random_worker_process(farm, draw), can_lose=False)


def measure_killed_refresher(scale: FaultScale) -> list[Measurement]:
    """The same, of the token refresher: only credentials whose token response was on its way are lost."""
    return measure_kills("killed-refresher", scale, kill_refresher, can_lose=True)


def kill_refresher(farm: MeasuredFarm) -> None:
    if refresher := farm.find_refresher():
        refresher.kill()


def measure_kills(
    row: str, scale: FaultScale, kill: Callable[[MeasuredFarm], None], *, can_lose: bool
) -> list[Measurement]:
    """`can_lose`: whether a kill may lose the credentials whose token response was on its way."""
    arguments = (*scale.pace, "--access-ttl", str(TOKEN_SECONDS), "--rotate")
    with run_farm(scale.accounts, *arguments, FARM_WORKER_PROCESSES="3", FARM_REFUSAL_PATIENCE="3") as farm:
        seconds = 2 * scale.seconds
        started = time.time()
        kills: list[float] = []

        def kill_repeatedly() -> None:
            while time.time() < started + seconds - KILL_INTERVAL_SECONDS:
                time.sleep(KILL_INTERVAL_SECONDS)
                kill(farm)
                kills.append(time.time())

        with in_background(kill_repeatedly):
            result = run_streams(farm, scale, seconds=seconds)
        lost = farm.upstream.control("lost")
        # Of each lost grant, the seconds to the nearest kill: what was sent before it may be granted after it.
        delays = [min((abs(kill - granted) for kill in kills), default=1e9) for granted in lost]
        dead = farm.read_pool()["credentials"]["dead"]
        unexplained = sum(delay > LOSS_WINDOW_SECONDS or not can_lose for delay in delays) + max(0, dead - len(lost))
        return [
            *check_responses(row, farm, result, "error event worker_lost"),
            *list_quantiles(row, "ms from a token response", read_token_times(farm)),
            exactly(row, "credentials lost, but for those on their way to a killed refresher", unexplained),
            unbounded(row, "credentials lost on their way", len(lost)),
            at_least(row, "credentials in doubt", farm.read_metric("farm_tokens_in_doubt_total"), len(lost)),
            unbounded(
                row, "ms between a token response and a kill that lost it, worst", 1000 * max(delays, default=0.0)
            ),
            unbounded(row, "refreshes", farm.upstream.read_counters()["refreshes"]),
            unbounded(row, "kills", len(kills)),
            unbounded(row, "answers", len(result.end_times)),
        ]
