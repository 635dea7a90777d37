"""Rows in which an operator reloads, restarts or stops the farm while responses are longer than it takes to drain."""

import os
import signal
import subprocess
import sys
import time

from bench.farm import MeasuredFarm, run_farm
from bench.faults.injection import in_background
from bench.faults.invariants import check_responses
from bench.faults.scale import FaultScale, run_streams
from bench.measurement import Measurement, exactly, unbounded
from bench.outcome import BROKEN, CORRECT, LoadResult
from bench.simulator import ROOT

#: Outcomes of requests that a stop has ended, each with an answer that says so.
STOP_OUTCOMES = ("status 503 shutting_down", "error event shutting_down", "error event worker_stopped")


def measure_reload(scale: FaultScale) -> list[Measurement]:
    """`./farm reload`, and a SIGHUP of either side, during streams longer than the drain: none is lost or cut."""
    row = "reload"
    drain = drain_below(scale)
    with run_farm(
        scale.accounts, *scale.pace, FARM_WORKER_PROCESSES="2", WEB_CONCURRENCY="2", FARM_DRAIN=drain
    ) as farm:

        def reload() -> None:
            pause = scale.seconds / 4
            time.sleep(pause)
            farm.run_command("reload")
            time.sleep(pause)
            farm.find_master("-m workers").send_signal(signal.SIGHUP)
            time.sleep(pause)
            farm.find_master("gunicorn").send_signal(signal.SIGHUP)

        with in_background(reload):
            result = run_streams(farm, scale)
        return [
            *check_responses(row, farm, result, f"{BROKEN} IncompleteReadError", f"{BROKEN} ConnectionResetError"),
            exactly(row, "streams that were cut", count_cut(result)),
            unbounded(row, "requests sent over a connection that was just closed", sum(result.errors.values())),
            unbounded(row, "answers", len(result.end_times)),
        ]


def drain_below(scale: FaultScale) -> str:
    """A drain timeout shorter than a stream."""
    return f"{max(0.5, scale.stream / 2):g}"


def count_cut(result: LoadResult) -> int:
    """Streams that had begun and did not end well."""
    return sum(bool(record.first_byte) for record in result.records if record.outcome != CORRECT)


def measure_stop(scale: FaultScale) -> list[Measurement]:
    """SIGTERM of the launcher, with more clients than accounts: every request that had been sent gets an answer."""
    row = "stop"
    stopped_at = 0.0
    with run_farm(scale.accounts, *scale.pace, WEB_CONCURRENCY="2", FARM_DRAIN=drain_below(scale)) as farm:
        launcher = farm.find_launcher()

        def stop() -> None:
            nonlocal stopped_at
            time.sleep(scale.seconds - 1)
            stopped_at = time.time()
            launcher.send_signal(signal.SIGTERM)
            launcher.wait()

        with in_background(stop):
            result = run_streams(farm, scale)
        sent = [record for record in result.records if result.started_at + record.started < stopped_at]
        ended = [record for record in sent if result.started_at + record.ended > stopped_at]
        wrong = [record.outcome for record in ended if record.outcome not in (CORRECT, *STOP_OUTCOMES)]
        return [
            exactly(row, f"requests without an answer {wrong or ''}".strip(), len(wrong)),
            unbounded(row, "requests that were running or waiting", len(ended)),
            unbounded(row, "of these, ended well", sum(record.outcome == CORRECT for record in ended)),
            unbounded(row, "answers before", len(sent) - len(ended)),
        ]


def measure_rolling_hosts(scale: FaultScale) -> list[Measurement]:
    """Two worker hosts are restarted one after the other, each draining for longer than a stream: nothing is lost."""
    row = "rolling"
    drain = f"{2 * scale.stream + 10:g}"
    with run_farm(scale.accounts, *scale.pace, FARM_WORKER_PROCESSES="1", FARM_DRAIN=drain) as farm:
        hosts = [start_worker_host(farm)]

        def restart_hosts() -> None:
            time.sleep(scale.seconds / 4)
            hosts[0].terminate()
            hosts[0].wait()
            hosts[0] = start_worker_host(farm)
            time.sleep(scale.seconds / 4)
            # The launcher starts its own host again.
            farm.find_master("-m workers").send_signal(signal.SIGTERM)

        with in_background(restart_hosts):
            result = run_streams(farm, scale)
        hosts[0].terminate()
        hosts[0].wait()
        return [
            *check_responses(row, farm, result),
            exactly(row, "streams that were cut", count_cut(result)),
            unbounded(row, "answers", len(result.end_times)),
        ]


def start_worker_host(farm: MeasuredFarm) -> "subprocess.Popen[bytes]":
    """Another host's `python -m workers` on the farm's Redis."""
    environment = {**os.environ, **farm.environment}
    return subprocess.Popen([sys.executable, "-m", "workers"], cwd=ROOT, env=environment, start_new_session=True)
