"""Runs scenarios on systems, several times, and gathers their figures."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from bench.compare.figures import Sample
from bench.compare.scenarios import SCENARIOS, Scale
from bench.compare.system import System

#: Scenario -> systems that it says something of, if not all.
ONLY = {
    "utilisation": ("farm", "haproxy", "portkey", "litellm"),
    "streaming": ("direct", "farm", "haproxy", "portkey-pass", "litellm"),
    "growth": ("farm",),
    "start": ("farm", "haproxy", "portkey", "litellm", "nginx"),
}
#: What is told as the difference to the upstream without anything in front of it.
ADDED = ("latency p50, ms", "latency p99, ms", "first byte p50, ms")


def measure(systems: Sequence[System], name: str, scale: Scale, runs: int) -> Iterator[Sample]:
    """A scenario so many times; in each run each system has its turn, so that all share the machine's moods."""
    for run in range(runs):
        of_run: list[Sample] = []
        for system in systems:
            if system.name in ONLY.get(name, (system.name,)):
                print(f"farm: measuring {name}, {system.name}, run {run + 1}", file=sys.stderr, flush=True)
                of_run += SCENARIOS[name](system, scale)
        yield from (*of_run, *added(of_run))


def added(samples: Iterable[Sample]) -> Iterator[Sample]:
    """What a system adds to the upstream's own figure of the same run."""
    direct = {(one.case, one.name): one.value for one in samples if one.system == "direct"}
    for one in samples:
        if one.system != "direct" and one.name in ADDED and (one.case, one.name) in direct:
            yield replace(one, name=f"added {one.name}", value=one.value - direct[one.case, one.name])
