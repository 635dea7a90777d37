"""Rows in which processes of the farm die or freeze."""

import os
import random
import signal
import subprocess
import sys
import time

from bench.farm import farm
from bench.faults.common import LEASE, Scale, load, meanwhile, sound, workers
from bench.measured import Measured, at_most, exactly, told
from bench.outcome import RIGHT
from bench.upstream import ROOT

#: Seconds after the token endpoint's answer in which a kill -9 can lose it, on a machine that is busy.
WINDOW = 0.5


def killed_workers(scale: Scale) -> list[Measured]:
    """kill -9 of a worker process every 5 s: without a first byte all succeed, the rest end in under 5 s."""
    row = "killed workers"
    draw = random.Random(scale.seed)
    kills: list[float] = []
    with farm(scale.accounts, *scale.pace, FARM_WORKER_PROCESSES="2") as bench:
        began = time.time()

        def kill() -> None:
            while time.time() < began + scale.seconds - 5:
                time.sleep(5)
                workers(bench, draw)
                kills.append(time.time())

        with meanwhile(kill):
            result = load(bench, scale)
        failed = [one for one in result.records if one.outcome != RIGHT]
        ends = [since_the_last(kills, result.started + one.ended) for one in failed]
        return [
            *sound(row, bench, result, "error event worker_lost"),
            exactly(row, "requests without a first byte that failed", sum(not one.first for one in failed)),
            at_most(row, "seconds until the rest had ended, worst", max(ends, default=0.0), 5),
            told(row, "kills", len(kills)),
            told(row, "streams that ended with an error event", len(failed)),
            told(row, "answers", len(result.ends)),
        ]


def since_the_last(events: list[float], at: float) -> float:
    """Seconds since the last event before that time."""
    return at - max((one for one in events if one <= at), default=at)


def killed_host(scale: Scale) -> list[Measured]:
    """kill -9 of a whole host: without a first byte all succeed, the rest end when its leases have run out."""
    row = "killed host"
    killed: list[float] = []
    with farm(scale.accounts, *scale.pace, FARM_WORKER_PROCESSES="1") as bench:
        command = [sys.executable, "-m", "workers"]
        host = subprocess.Popen(command, cwd=ROOT, env=bench.environment, start_new_session=True)

        def kill() -> None:
            time.sleep(4)
            os.killpg(host.pid, signal.SIGKILL)
            killed.append(time.time())
            host.wait()

        with meanwhile(kill):
            result = load(bench, scale, seconds=max(scale.seconds, 2 * LEASE))
        failed = [one for one in result.records if one.outcome != RIGHT]
        ends = [since_the_last(killed, result.started + one.ended) for one in failed]
        return [
            *sound(row, bench, result, "error event worker_lost"),
            exactly(row, "requests without a first byte that failed", sum(not one.first for one in failed)),
            at_most(row, "seconds until the rest had ended, worst", max(ends, default=0.0), LEASE + 5),
            told(row, "streams that ended with an error event", len(failed)),
        ]


def killed_front(scale: Scale) -> list[Measured]:
    """kill -9 of a front process: its jobs are gone in 5 s, the others notice nothing."""
    row = "killed front"
    draw = random.Random(scale.seed)
    took: list[float] = []
    with farm(scale.accounts, *scale.pace, WEB_CONCURRENCY="2") as bench:

        def kill() -> None:
            time.sleep(scale.seconds / 3)
            draw.choice(bench.below("gunicorn")).kill()
            began = time.monotonic()
            time.sleep(0.2)
            while bench.jobs_of_dead_fronts() and time.monotonic() - began < 30:
                time.sleep(0.1)
            took.append(time.monotonic() - began)

        with meanwhile(kill):
            result = load(bench, scale)
        return [
            *sound(row, bench, result, "broken"),
            at_most(row, "seconds until its jobs were gone", max(took), 5),
            told(row, "clients whose connection died", sum(result.errors.values())),
        ]


def reloaded_front(scale: Scale) -> list[Measured]:
    """SIGHUP of the front, three times: no running stream is lost."""
    row = "reloaded front"
    with farm(scale.accounts, *scale.pace, WEB_CONCURRENCY="2") as bench:

        def reload() -> None:
            for _ in range(3):
                time.sleep(scale.seconds / 4)
                bench.master("gunicorn").send_signal(signal.SIGHUP)

        with meanwhile(reload):
            result = load(bench, scale)
        lost = sum(bool(one.first) for one in result.records if one.outcome != RIGHT)
        return [
            *sound(row, bench, result, "broken"),
            exactly(row, "streams that were lost", lost),
            exactly(row, "web processes that were called dead", bench.metric("farm_fronts_lost_total")),
            told(row, "requests sent over a connection that was just closed", sum(result.errors.values())),
            told(row, "answers", len(result.ends)),
        ]


def frozen(scale: Scale) -> list[Measured]:
    """A worker process is stopped for three lease times and goes on: no collision."""
    row = "frozen"
    draw = random.Random(scale.seed)
    with farm(scale.accounts, *scale.pace, FARM_WORKER_PROCESSES="2") as bench:

        def freeze() -> None:
            time.sleep(2)
            process = draw.choice(bench.below("-m workers"))
            process.suspend()
            time.sleep(scale.frozen * LEASE)
            process.resume()

        with meanwhile(freeze):
            result = load(bench, scale, seconds=max(scale.seconds, scale.frozen * LEASE + 8))
        return [
            *sound(row, bench, result, "error event worker_lost", "error event lease_lost"),
            told(row, "streams that ended with an error event", sum(result.errors.values())),
            told(row, "answers", len(result.ends)),
        ]


def rotation(scale: Scale) -> list[Measured]:
    """Access tokens of 2 s, rotated, kill -9 of a worker process every 3 s: no credential lost but in the window."""
    row = "rotation"
    draw = random.Random(scale.seed)
    with farm(scale.accounts, *scale.pace, "--access-ttl", "2", "--rotate", FARM_WORKER_PROCESSES="2") as bench:
        seconds = 2 * scale.seconds
        began = time.time()
        kills: list[float] = []

        def kill() -> None:
            while time.time() < began + seconds - 3:
                time.sleep(3)
                workers(bench, draw)
                kills.append(time.time())

        with meanwhile(kill):
            result = load(bench, scale, seconds=seconds)
        lost = bench.upstream.ask("lost")
        windows = [min((kill - granted for kill in kills if kill >= granted), default=1e9) for granted in lost]
        dead = bench.status()["pools"][0]["credentials"]["dead"]
        return [
            *sound(row, bench, result, "error event worker_lost"),
            exactly(
                row, "credentials lost outside the window", sum(one > WINDOW for one in windows) + dead - len(lost)
            ),
            told(row, "credentials killed between the endpoint's answer and the store", len(lost)),
            told(row, "ms between that answer and the kill, worst", 1000 * max(windows, default=0.0)),
            told(row, "refreshes", bench.upstream.counters()["refreshes"]),
            told(row, "kills", len(kills)),
        ]
