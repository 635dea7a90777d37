"""Rows in which Redis dies, or its connections."""

import time

from bench.farm import farm
from bench.faults.common import Scale, load, meanwhile, share, sound
from bench.measured import Measured, at_least, exactly, told
from bench.outcome import RIGHT


def killed_redis(scale: Scale) -> list[Measured]:
    """kill -9 of Redis, back after 3 s: 95 % of the streams are whole, full rate again within 5 s."""
    row = "killed Redis"
    back: list[float] = []
    with farm(scale.accounts, *scale.pace, FARM_WORKER_PROCESSES="2", WEB_CONCURRENCY="2") as bench:

        def kill() -> None:
            time.sleep(scale.seconds / 3)
            bench.redis.kill()
            time.sleep(3)
            bench.redis.start()
            back.append(time.time())

        with meanwhile(kill):
            result = load(bench, scale)
        since = back[0] - result.started + 5
        return [
            *sound(row, bench, result, "error event", "status 5"),
            at_least(row, "share of the requests that were whole", len(result.ends) / len(result.records), 0.95),
            at_least(
                row,
                "share of the accounts' time, from 5 s after it was back",
                share(result, scale, scale.accounts, since),
                0.95,
            ),
            told(row, f"errors {dict(result.errors) or ''}".strip(), sum(result.errors.values())),
        ]


def slow(scale: Scale) -> list[Measured]:
    """Redis answers nobody for 4 s: every stream is whole."""
    row = "slow Redis"
    with farm(scale.accounts, *scale.pace, FARM_WORKER_PROCESSES="2", WEB_CONCURRENCY="2") as bench:

        def pause() -> None:
            time.sleep(scale.seconds / 3)
            bench.redis.client.client_pause(4000)

        with meanwhile(pause):
            result = load(bench, scale)
        return [*sound(row, bench, result), told(row, "answers", len(result.ends))]


def full(scale: Scale) -> list[Measured]:
    """Redis is out of memory for 3 s: new requests get a clean 503, every stream that runs is whole."""
    row = "full Redis"
    with farm(scale.accounts, *scale.pace, FARM_WORKER_PROCESSES="2", WEB_CONCURRENCY="2") as bench:
        since = until = 0.0

        def fill() -> None:
            nonlocal since, until
            time.sleep(scale.seconds / 3)
            since = time.time()
            bench.redis.client.config_set("maxmemory", "1mb")
            time.sleep(3)
            bench.redis.client.config_set("maxmemory", "0")
            until = time.time()

        with meanwhile(fill):
            result = load(bench, scale)
        refused = [one for one in result.records if one.outcome != RIGHT]
        outside = [one for one in refused if not since - 1 < result.started + one.ended < until + 1]
        return [
            *sound(row, bench, result, "status 503 store_unavailable"),
            exactly(row, "requests refused before or after", len(outside)),
            exactly(row, "tracebacks in the log", bench.log().count("Traceback")),
            told(row, "requests refused meanwhile", len(refused)),
            told(row, "answers", len(result.ends)),
        ]


def killed_connections(scale: Scale) -> list[Measured]:
    """Pub/sub connections killed 20 times: every stream is whole."""
    row = "killed pub/sub"
    with farm(scale.accounts, *scale.pace, FARM_WORKER_PROCESSES="2", WEB_CONCURRENCY="2") as bench:

        def kill() -> None:
            for _ in range(20):
                time.sleep(scale.seconds / 22)
                bench.redis.client.client_kill_filter(_type="pubsub")

        with meanwhile(kill):
            result = load(bench, scale)
        return [
            *sound(row, bench, result),
            told(row, "answers", len(result.ends)),
            told(row, "frames sent again", bench.metric("farm_frames_replayed_total")),
        ]
