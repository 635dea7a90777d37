"""Rows in which processes of the farm die or freeze."""

import os
import random
import signal
import subprocess
import sys
import time

from bench.farm import run_farm
from bench.faults.injection import LEASE_SECONDS, in_background, kill_random_worker_process
from bench.faults.invariants import check_responses
from bench.faults.scale import FaultScale, run_streams
from bench.measurement import Measurement, at_most, exactly, unbounded
from bench.outcome import CORRECT
from bench.simulator import ROOT


def measure_killed_workers(scale: FaultScale) -> list[Measurement]:
    """kill -9 of a worker process every 5 s: requests without a first byte succeed, the others end in under 5 s."""
    row = "killed workers"
    draw = random.Random(scale.seed)
    kills: list[float] = []
    with run_farm(scale.accounts, *scale.pace, FARM_WORKER_PROCESSES="2") as farm:
        started = time.time()

        def kill() -> None:
            while time.time() < started + scale.seconds - 5:
                time.sleep(5)
                kill_random_worker_process(farm, draw)
                kills.append(time.time())

        with in_background(kill):
            result = run_streams(farm, scale)
        failed = [record for record in result.records if record.outcome != CORRECT]
        delays = [seconds_since_last(kills, result.started_at + record.ended) for record in failed]
        return [
            *check_responses(row, farm, result, "error event worker_lost"),
            exactly(row, "requests without a first byte that failed", sum(not record.first_byte for record in failed)),
            at_most(row, "seconds until the rest had ended, worst", max(delays, default=0.0), 5),
            unbounded(row, "kills", len(kills)),
            unbounded(row, "streams that ended with an error event", len(failed)),
            unbounded(row, "answers", len(result.end_times)),
        ]


def seconds_since_last(events: list[float], moment: float) -> float:
    """Seconds from the last event before the moment; 0 when there is none."""
    return moment - max((event for event in events if event <= moment), default=moment)


def measure_killed_host(scale: FaultScale) -> list[Measurement]:
    """kill -9 of a whole host: requests without a first byte succeed, the others end when its leases expire."""
    row = "killed host"
    kills: list[float] = []
    with run_farm(scale.accounts, *scale.pace, FARM_WORKER_PROCESSES="1") as farm:
        command = [sys.executable, "-m", "workers"]
        host = subprocess.Popen(command, cwd=ROOT, env=farm.environment, start_new_session=True)

        def kill() -> None:
            time.sleep(4)
            os.killpg(host.pid, signal.SIGKILL)
            kills.append(time.time())
            host.wait()

        with in_background(kill):
            result = run_streams(farm, scale, seconds=max(scale.seconds, 2 * LEASE_SECONDS))
        failed = [record for record in result.records if record.outcome != CORRECT]
        delays = [seconds_since_last(kills, result.started_at + record.ended) for record in failed]
        return [
            *check_responses(row, farm, result, "error event worker_lost"),
            exactly(row, "requests without a first byte that failed", sum(not record.first_byte for record in failed)),
            at_most(row, "seconds until the rest had ended, worst", max(delays, default=0.0), LEASE_SECONDS + 5),
            unbounded(row, "streams that ended with an error event", len(failed)),
        ]


def measure_killed_front(scale: FaultScale) -> list[Measurement]:
    """kill -9 of a front: its jobs are gone within 5 s, and the other front's clients see no error."""
    row = "killed front"
    draw = random.Random(scale.seed)
    delays: list[float] = []
    with run_farm(scale.accounts, *scale.pace, WEB_CONCURRENCY="2") as farm:

        def kill() -> None:
            time.sleep(scale.seconds / 3)
            draw.choice(farm.list_children("gunicorn")).kill()
            started = time.monotonic()
            time.sleep(0.2)
            while farm.count_jobs_of_dead_fronts() and time.monotonic() - started < 30:
                time.sleep(0.1)
            delays.append(time.monotonic() - started)

        with in_background(kill):
            result = run_streams(farm, scale)
        return [
            *check_responses(row, farm, result, "broken"),
            at_most(row, "seconds until its jobs were gone", max(delays), 5),
            unbounded(row, "clients whose connection died", sum(result.errors.values())),
        ]


def measure_reloaded_front(scale: FaultScale) -> list[Measurement]:
    """SIGHUP of the front, three times: no running stream is lost."""
    row = "reloaded front"
    with run_farm(scale.accounts, *scale.pace, WEB_CONCURRENCY="2") as farm:

        def reload() -> None:
            for _ in range(3):
                time.sleep(scale.seconds / 4)
                farm.find_master("gunicorn").send_signal(signal.SIGHUP)

        with in_background(reload):
            result = run_streams(farm, scale)
        lost = sum(bool(record.first_byte) for record in result.records if record.outcome != CORRECT)
        return [
            *check_responses(row, farm, result, "broken"),
            exactly(row, "streams that were lost", lost),
            exactly(row, "web processes that were called dead", farm.read_metric("farm_fronts_lost_total")),
            unbounded(row, "requests sent over a connection that was just closed", sum(result.errors.values())),
            unbounded(row, "answers", len(result.end_times)),
        ]


def measure_frozen_worker(scale: FaultScale) -> list[Measurement]:
    """A worker process is suspended for three lease lifetimes and resumes: no collision."""
    row = "frozen"
    draw = random.Random(scale.seed)
    with run_farm(scale.accounts, *scale.pace, FARM_WORKER_PROCESSES="2") as farm:

        def freeze() -> None:
            time.sleep(2)
            process = draw.choice(farm.list_children("-m workers"))
            process.suspend()
            time.sleep(scale.frozen * LEASE_SECONDS)
            process.resume()

        with in_background(freeze):
            result = run_streams(farm, scale, seconds=max(scale.seconds, scale.frozen * LEASE_SECONDS + 8))
        return [
            *check_responses(row, farm, result, "error event worker_lost", "error event lease_lost"),
            unbounded(row, "streams that ended with an error event", sum(result.errors.values())),
            unbounded(row, "answers", len(result.end_times)),
        ]
