"""Runs scenarios on systems, several times, and collects their samples."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from bench.compare.figures import Sample
from bench.compare.scenarios import SCENARIOS, CompareScale
from bench.compare.system import System

#: Scenario -> the systems that it applies to, if not all.
APPLICABLE_SYSTEMS = {
    "utilisation": ("farm", "haproxy", "portkey", "litellm"),
    "streaming": ("direct", "farm", "haproxy", "portkey-pass", "litellm"),
    "growth": ("farm",),
    "start": ("farm", "haproxy", "portkey", "litellm", "nginx"),
}
#: Figures that are also reported as the difference from the upstream without anything in front of it.
DIFFERENCE_FIGURES = ("latency p50, ms", "latency p99, ms", "first byte p50, ms")


def measure(systems: Sequence[System], name: str, scale: CompareScale, runs: int) -> Iterator[Sample]:
    """Runs a scenario several times; every run covers all systems, so that all share the state of the machine."""
    for run in range(runs):
        samples: list[Sample] = []
        for system in systems:
            if system.name in APPLICABLE_SYSTEMS.get(name, (system.name,)):
                print(f"farm: measuring {name}, {system.name}, run {run + 1}", file=sys.stderr, flush=True)
                samples += SCENARIOS[name](system, scale)
        yield from (*samples, *compute_differences(samples))


def compute_differences(samples: Iterable[Sample]) -> Iterator[Sample]:
    """What each system adds to the bare upstream's figures of the same run."""
    direct = {(sample.case, sample.name): sample.value for sample in samples if sample.system == "direct"}
    for sample in samples:
        key = (sample.case, sample.name)
        if sample.system != "direct" and sample.name in DIFFERENCE_FIGURES and key in direct:
            yield replace(sample, name=f"added {sample.name}", value=sample.value - direct[key])
