"""The row in which processes die at random while a batch runs."""

import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from bench.batches import ENDED, BatchClient
from bench.farm import MeasuredFarm, run_farm
from bench.faults.injection import kill_random_worker_process
from bench.faults.scale import FaultScale
from bench.measurement import Measurement, at_most, exactly, unbounded

#: Seconds between two kills, and until a killed Redis is back.
INTERVAL_SECONDS, REDIS_SECONDS = 4.0, 1.0
#: Seconds for which a front is frozen, longer than the lease of its batch.
FROZEN_SECONDS = 14.0
#: Share of the lines until which something is killed, and seconds that the batch may take in all.
LAST_KILL_SHARE, MAX_SECONDS = 0.85, 900.0


def measure_killed_batch(scale: FaultScale) -> list[Measurement]:
    """kill -9 of fronts, worker processes and Redis, and a frozen front, through a batch: each line is there once."""
    row = "batch"
    draw, broken, started = random.Random(scale.seed), Counter[str](), time.monotonic()
    with run_farm(
        scale.accounts, "--delay", f"{scale.stream:g}", FARM_WORKER_PROCESSES="2", WEB_CONCURRENCY="2"
    ) as farm:
        client = BatchClient(farm.port)
        batch_id = client.run(scale.lines)
        kinds = list(BREAKAGES)
        draw.shuffle(kinds)
        while is_before(client, batch_id, LAST_KILL_SHARE) and time.monotonic() - started < MAX_SECONDS:
            time.sleep(INTERVAL_SECONDS * min(1.0, scale.stream))
            kind = kinds[broken.total() % len(kinds)]
            BREAKAGES[kind](farm, draw)
            broken[kind] += 1
        batch = wait_for_end(client, batch_id, MAX_SECONDS)
        found = client.count_custom_ids(batch)
        again = farm.upstream.read_counters()["served"] - scale.lines
        return [
            exactly(row, "lines without just one result", scale.lines - sum(n == 1 for n in found.values())),
            exactly(row, f"batches that did not complete ({batch['status']})", batch["status"] != "completed"),
            exactly(row, "lines that failed", batch["request_counts"]["failed"]),
            exactly(row, "lines counted twice, or not", batch["request_counts"]["completed"] - scale.lines),
            at_most(row, "requests run again, per kill and account", again / broken.total() / scale.accounts, 3),
            unbounded(row, f"things broken {dict(broken)}", broken.total()),
            unbounded(row, "lines", scale.lines),
        ]


def is_before(client: BatchClient, batch_id: str, share: float) -> bool:
    """Whether less than this share of the lines is done, as far as the farm can say."""
    batch = client.try_to_read(batch_id)
    if batch is None:
        return True
    counts = batch["request_counts"]
    return batch["status"] not in ENDED and counts["completed"] + counts["failed"] < share * max(1, counts["total"])


def wait_for_end(client: BatchClient, batch_id: str, seconds: float) -> dict[str, Any]:
    """Raises RuntimeError when the batch does not end in time."""
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        batch = client.try_to_read(batch_id)
        if batch and batch["status"] in ENDED:
            return batch
        time.sleep(0.3)
    raise RuntimeError(f"the batch has not ended after {seconds} s")


def kill_front(farm: MeasuredFarm, draw: random.Random) -> None:
    draw.choice(farm.list_children("gunicorn")).kill()


def kill_all_fronts(farm: MeasuredFarm, draw: random.Random) -> None:
    for front in farm.list_children("gunicorn"):
        front.kill()


def kill_redis(farm: MeasuredFarm, draw: random.Random) -> None:
    farm.redis.kill()
    time.sleep(REDIS_SECONDS)
    farm.redis.start()


def freeze_front(farm: MeasuredFarm, draw: random.Random) -> None:
    """It wakes up when another one runs its batch."""
    front = draw.choice(farm.list_children("gunicorn"))
    front.suspend()
    time.sleep(FROZEN_SECONDS)
    front.resume()


BREAKAGES: dict[str, Callable[[MeasuredFarm, random.Random], None]] = {
    "front": kill_front,
    "workers": kill_random_worker_process,
    "redis": kill_redis,
    "fronts": kill_all_fronts,
    "frozen": freeze_front,
}
