"""Cuts each link of a farm over several hosts for 20 s, while clients stream."""

import asyncio
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass

from bench.farm import API_KEY
from bench.faults.injection import in_background
from bench.faults.invariants import select_errors
from bench.hosts.farm import FRONT_PORT, FRONTS, STORE, UPSTREAM, WORKERS, HostedFarm, run_hosted_farm
from bench.hosts.network import HERE
from bench.load import Load, run_load
from bench.measurement import Measurement, at_least, exactly, unbounded
from bench.outcome import MIXED, STUCK, TRUNCATED, LoadResult

#: Name of a cut -> one host, and those that it can't reach.
CUTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "front-store": ("front1", (STORE,)),
    "workers-store": ("workers1", (STORE,)),
    "workers-upstream": ("workers1", (UPSTREAM,)),
    "workers-all": ("workers1", (STORE, UPSTREAM)),
    "caller-front": ("front1", (HERE,)),
    "store-all": (STORE, (*FRONTS, *WORKERS)),
}
#: Errors that a cut may cause; each says what has happened.
ALLOWED = (
    "error event worker_lost",
    "error event lease_lost",
    "error event upstream",
    "error event reply_gap",
    "status 502",
    "status 503",
    "status 429",
)


@dataclass(frozen=True)
class HostsScale:
    """How large the farm is, and how long it is cut."""

    accounts: int = 60
    #: Clients in all; with fewer than accounts, workers are idle and requests find them.
    clients: int = 120
    #: Seconds that a stream takes, and its events.
    stream: float = 2.0
    pieces: int = 20
    #: Seconds before a cut, of a cut, until the rate must be full again, and in which that is measured.
    before: float = 10.0
    cut: float = 20.0
    recovery: float = 10.0
    after: float = 10.0
    loss: float = 0.01

    @property
    def seconds(self) -> float:
        return self.before + self.cut + self.recovery + self.after

    @property
    def pace(self) -> tuple[str, ...]:
        return ("--chunks", str(self.pieces), "--chunk-delay", f"{self.stream / self.pieces:g}")


DEFAULT_SCALE = HostsScale()


def measure_cuts(names: Iterable[str], scale: HostsScale = DEFAULT_SCALE) -> list[Measurement]:
    """Cuts these links one after another, with one farm."""
    measurements = []
    with run_hosted_farm(scale.accounts, *scale.pace, loss=scale.loss) as farm:
        for name in names:
            print(f"farm: cutting {name}", file=sys.stderr, flush=True)
            measurements += measure_cut(name, farm, scale)
    return measurements


def measure_cut(name: str, farm: HostedFarm, scale: HostsScale) -> list[Measurement]:
    """Cuts the links while clients stream through both fronts."""
    one, others = CUTS[name]
    collisions = farm.upstream.read_counters()["collisions"]

    def cut() -> None:
        time.sleep(scale.before)
        farm.set_links(one, others, is_cut=True)
        time.sleep(scale.cut)
        farm.set_links(one, others, is_cut=False)

    with in_background(cut):
        result = run_streams(farm, scale)
    collisions = farm.upstream.read_counters()["collisions"] - collisions
    return judge(f"hosts {name}", result, collisions, scale)


def run_streams(farm: HostedFarm, scale: HostsScale) -> LoadResult:
    """Streams through both fronts, with half of the clients each."""

    async def run_all() -> list[LoadResult]:
        loads = [build_load(farm.network.address(front), number, scale) for number, front in enumerate(FRONTS)]
        return await asyncio.gather(*map(run_load, loads))

    first, second = asyncio.run(run_all())
    for record in second.records:
        first.add(record)
    return first


def build_load(address: str, number: int, scale: HostsScale) -> Load:
    clients = scale.clients // len(FRONTS)
    timeout = 60 + scale.cut + scale.stream * scale.clients / scale.accounts
    return Load(
        address,
        FRONT_PORT,
        API_KEY,
        clients,
        scale.seconds,
        stream=True,
        first_client=number * clients,
        timeout=timeout,
    )


def judge(row: str, result: LoadResult, collisions: int, scale: HostsScale) -> list[Measurement]:
    cut_at, healed_at = scale.before, scale.before + scale.cut
    bad = {outcome: result.errors[outcome] for outcome in (TRUNCATED, MIXED, STUCK) if result.errors[outcome]}
    others = select_errors(result, *ALLOWED, TRUNCATED, MIXED, STUCK)
    full = min(1.0, scale.clients / scale.accounts)

    def share(since: float, until: float) -> float:
        return result.busy_seconds(scale.stream, since, until) / (until - since) / scale.accounts

    before = share(min(3.0, cut_at / 2), cut_at)
    after = share(healed_at + scale.recovery, scale.seconds)
    allowed = {outcome: count for outcome, count in result.errors.items() if outcome.startswith(ALLOWED)}
    late = [record.ended - record.started for record in result.records if record.ended >= cut_at]
    return [
        exactly(row, f"answers short, mixed or stuck {bad or ''}".strip(), sum(bad.values())),
        exactly(row, "collisions at the upstream", collisions),
        exactly(row, f"errors that do not come of the cut {others or ''}".strip(), sum(others.values())),
        at_least(row, "rate 10 s after the cut, of that before", after / before if before else 0.0, 0.95),
        unbounded(row, "rate before the cut, of the full one", round(before / full, 3)),
        unbounded(row, "rate during the cut, of the full one", round(share(cut_at, healed_at) / full, 3)),
        unbounded(row, "slowest answer since the cut, s", round(max(late, default=0.0), 1)),
        unbounded(row, f"requests that failed by it {allowed or ''}".strip(), sum(allowed.values())),
        unbounded(row, "right answers", len(result.end_times)),
    ]
