"""What TLS to the upstream costs: memory per account, utilisation and leases, beside the same farm over HTTP."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import certifi

from bench.farm import API_KEY, MeasuredFarm, run_farm
from bench.load import Load, run_load
from bench.measurement import Measurement, at_most, exactly, unbounded
from bench.outcome import LoadResult

ACCOUNTS = 1000
#: Seconds of one response, and the start of the load that is left out of the utilisation.
SERVICE_SECONDS, WARM_UP_SECONDS = 5.0, 10.0


@dataclass
class TransportFigures:
    """One farm's figures."""

    #: Proportional set size of the worker processes in MB, before the load and after it.
    idle: float
    used: float
    cpu_seconds: float
    utilisation: float
    #: Requests without a correct response, collisions at the upstream, leases lost.
    failures: tuple[int, int, int]
    p99: float


def measure_tls(seconds: float) -> list[Measurement]:
    """1,000 accounts over TLS and over HTTP: memory per account, utilisation, leases lost at the start."""
    load_seconds = max(seconds, WARM_UP_SECONDS + 2 * SERVICE_SECONDS)
    plain, tls = (measure_transport(load_seconds, *options) for options in ((), ("--https",)))
    return [
        at_most("tls", "KB PSS more per account, before its first request", kilobytes(tls.idle - plain.idle), 60),
        at_most("tls", "KB PSS more per account, after it", kilobytes(tls.used - plain.used), 60),
        unbounded("tls", "KB PSS per account over HTTP", round(kilobytes(plain.used), 1)),
        at_most("tls", "utilisation less than over HTTP", plain.utilisation - tls.utilisation, 0.01),
        unbounded("tls", "utilisation over HTTP", round(plain.utilisation, 4)),
        unbounded("tls", "CPU of the workers, times that over HTTP", round(tls.cpu_seconds / plain.cpu_seconds, 2)),
        unbounded("tls", "p99 in s over HTTP", round(plain.p99, 2)),
        unbounded("tls", "p99 in s over TLS", round(tls.p99, 2)),
        *(
            exactly("tls", f"{name} over TLS", count)
            for name, count in zip(("errors", "collisions", "leases lost"), tls.failures, strict=True)
        ),
    ]


def kilobytes(megabytes: float) -> float:
    """Kilobytes per account."""
    return megabytes * 1024 / ACCOUNTS


def measure_transport(seconds: float, *options: str) -> TransportFigures:
    """Starts the farm and has every account used at once, which opens all connections."""
    with run_farm(
        ACCOUNTS, "--delay", f"{SERVICE_SECONDS:g}", *options, prepare=trust_many, FARM_WORKER_PROCESSES="1"
    ) as farm:
        idle, cpu_before = farm.measure_memory()["workers"], farm.measure_cpu_seconds()["workers"]
        load = Load("127.0.0.1", farm.port, API_KEY, ACCOUNTS + ACCOUNTS // 10, seconds)
        result = asyncio.run(run_load(load))
        return TransportFigures(
            idle,
            farm.measure_memory()["workers"],
            farm.measure_cpu_seconds()["workers"] - cpu_before,
            measure_utilisation(result),
            (
                sum(result.errors.values()),
                farm.upstream.read_counters()["collisions"],
                int(farm.read_metric("farm_leases_lost")),
            ),
            result.percentile(0.99),
        )


def measure_utilisation(result: LoadResult) -> float:
    busy = result.busy_seconds(SERVICE_SECONDS, WARM_UP_SECONDS)
    return busy / (result.seconds - WARM_UP_SECONDS) / ACCOUNTS


def trust_many(farm: MeasuredFarm) -> None:
    """Has the farm trust the public authorities too, as with an upstream of the public web: that takes 700 KB."""
    if farm.upstream.certificate:
        bundle = Path(farm.upstream.certificate).with_name("authorities.pem")
        bundle.write_text(Path(farm.upstream.certificate).read_text() + Path(certifi.where()).read_text())
        farm.environment["FARM_CA_BUNDLE"] = str(bundle)
