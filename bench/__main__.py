"""`./farm bench`: measures the farm, alone, beside its peers and while something is broken; keeps what it found."""

import argparse
import json
import platform
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from bench.checks import CHECKS
from bench.compare.figures import PROMISES, Figures
from bench.compare.measure import measure
from bench.compare.report import promises, read, write
from bench.compare.scenarios import SCENARIOS, SMOKE, Scale
from bench.compare.system import System
from bench.compare.systems import SYSTEMS
from bench.faults import ROWS, SMALL
from bench.faults import Scale as FaultScale
from bench.measured import Measured

RESULTS = Path(__file__).parent / "results"
#: The systems that are measured when nobody says otherwise.
USUAL = ("direct", "farm")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="farm bench",
        description=described("Beside peers, medians of several runs", SCENARIOS)
        + described("The farm alone", CHECKS)
        + "\nWhile clients stream and something is broken:\n  faults       row by row (--rows)\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [*SCENARIOS, *CHECKS, "faults"]
    parser.add_argument("scenario", nargs="*", choices=[*names, []], help="which to run (default: all)")
    parser.add_argument("--systems", default=",".join(USUAL), help=f"beside which, of {', '.join(SYSTEMS)}, or all")
    parser.add_argument("--runs", type=int, default=3, help="runs of each scenario")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each load")
    parser.add_argument("--grid", type=grid, help="of `utilisation`: accounts x seconds, e.g. 8x0.2,100x1")
    parser.add_argument("--name", default="latest", help="folder in bench/results/ for what is found")
    parser.add_argument("--keep", action="store_true", help="keep what that folder has of other scenarios")
    parser.add_argument("--smoke", action="store_true", help="a small load, once: whether all of it works")
    parser.add_argument("--rows", default=",".join(ROWS), help="of `faults`: which, with commas")
    parser.add_argument("--small", action="store_true", help="of `faults`: a small farm; keeps no result")
    parser.add_argument("--seed", type=int, default=1, help="of `faults`: what is broken, and when")
    parser.add_argument("--json", action="store_true", help="of `faults` and the farm alone: print JSON")
    return parser.parse_args()


def grid(text: str) -> tuple[tuple[int, float], ...]:
    """Accounts and seconds from `8x0.2,100x1`."""
    pairs = (one.split("x") for one in text.split(","))
    return tuple((int(accounts), float(seconds)) for accounts, seconds in pairs)


def described(title: str, scenarios: Mapping[str, object]) -> str:
    """A list of scenarios for the help."""
    lines = [f"  {name:12} {(scenario.__doc__ or '').splitlines()[0]}" for name, scenario in scenarios.items()]
    return f"\n{title}:\n" + "\n".join(lines) + "\n"


def machine() -> dict[str, object]:
    """What it was measured on."""
    return {
        "machine": f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GB, {platform.platform()}",
        "python": platform.python_version(),
    }


def chosen(names: str) -> list[System]:
    """The systems that can run here; says why one can't."""
    found = []
    for name in SYSTEMS if names == "all" else names.split(","):
        if SYSTEMS[name].version():
            found.append(SYSTEMS[name])
        else:
            print(f"farm: {name} is not installed here, and left out", file=sys.stderr)
    return found


def compare(given: argparse.Namespace, names: Sequence[str]) -> bool:
    """Measures beside peers; whether every bound was kept."""
    systems = chosen(given.systems)
    scale = SMOKE if given.smoke else replace(Scale(), seconds=given.seconds)
    scale = replace(scale, grid=given.grid) if given.grid else scale
    runs = 1 if given.smoke else given.runs
    versions = ", ".join(f"{one.name} {one.version()}" for one in systems)
    folder = RESULTS / given.name
    samples, measured = read(folder) if given.keep else ([], {})
    for name in names:
        samples = [one for one in samples if one.scenario != name]
        samples += measure(systems, name, scale, runs)
        figures = Figures(samples)
        measured[name] = f"{time.strftime('%Y-%m-%d %H:%M')}, {runs} runs, loads of {scale.seconds:g} s"
        write(folder, figures, {**machine(), "versions": versions, "measured": measured})
    print(promises(figures))
    print(f"all figures: {folder / 'README.md'}")
    found = [promise.kept(figures) for promise in PROMISES]
    return all(kept for _, _, kept in filter(None, found))


def alone(given: argparse.Namespace, names: Sequence[str]) -> bool:
    """Measures the farm alone, and under faults; whether every bound was kept."""
    measured: list[Measured] = []
    for name in names:
        print(f"farm: measuring {name}", file=sys.stderr, flush=True)
        if name == "faults":
            scale = replace(SMALL if given.small else FaultScale(), seed=given.seed)
            for row in given.rows.split(","):
                print(f"farm: breaking {row}", file=sys.stderr, flush=True)
                measured += ROWS[row](scale)
        else:
            measured += CHECKS[name](given.seconds)
    facts = {"time": time.strftime("%Y-%m-%d %H:%M"), **machine(), "measured": [vars(one) for one in measured]}
    if not given.small:
        (RESULTS / given.name).mkdir(parents=True, exist_ok=True)
        (RESULTS / given.name / "alone.json").write_text(json.dumps(facts, indent=1) + "\n")
    if given.json:
        print(json.dumps(facts, indent=1))
    else:
        show(measured)
    return all(one.holds is not False for one in measured)


def show(measured: list[Measured]) -> None:
    """A table, a line a fact."""
    for one in measured:
        verdict = "" if one.holds is None else "  ok" if one.holds else "  MISSED"
        print(f"{one.scenario:12} {one.name:55} {one.value:>12} {one.bound:>14}{verdict}")


def main() -> int:
    """Runs what was asked for; exit code 1 when a bound is missed."""
    given = arguments()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    wanted = given.scenario or [*SCENARIOS, *CHECKS, "faults"]
    beside = [name for name in wanted if name in SCENARIOS]
    others = [name for name in wanted if name not in SCENARIOS]
    kept = compare(given, beside) if beside else True
    return 0 if (alone(given, others) if others else True) and kept else 1


if __name__ == "__main__":
    sys.exit(main())
