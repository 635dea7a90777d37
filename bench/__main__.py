"""`./farm bench`: measures the farm alone, compared with its peers, and under faults; saves the results."""

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
from bench.cleanup import end_all_on_exit
from bench.compare.figures import Figures
from bench.compare.measure import measure
from bench.compare.report import format_requirements, read, write
from bench.compare.requirements import REQUIREMENTS
from bench.compare.scenarios import SCENARIOS, SMOKE, CompareScale
from bench.compare.system import System
from bench.compare.systems import SYSTEMS
from bench.faults import ROWS, SMALL, FaultScale
from bench.hosts.network import find_obstacle
from bench.hosts.partitions import CUTS, measure_cuts
from bench.measurement import Measurement

RESULTS = Path(__file__).parent / "results"
DEFAULT_SYSTEMS = ("direct", "farm")
#: Scenarios that need network namespaces.
NEED_NAMESPACES = ("hosts", "distance")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="farm bench",
        description=describe_scenarios("Compared with peers, medians of several runs", SCENARIOS)
        + describe_scenarios("The farm alone", CHECKS)
        + "\nUnder faults, while clients stream:\n  faults       row by row (--rows)\n"
        + "  hosts        fronts and worker hosts in network namespaces (as root), links cut by turns (--cuts)\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [*SCENARIOS, *CHECKS, "faults", "hosts"]
    systems = f"systems to compare, of {', '.join(SYSTEMS)}, or all"
    parser.add_argument("scenario", nargs="*", choices=[*names, []], help="scenarios to run (default: all)")
    parser.add_argument("--systems", default=",".join(DEFAULT_SYSTEMS), help=systems)
    parser.add_argument("--runs", type=int, default=3, help="runs of each scenario")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each load")
    parser.add_argument("--grid", type=parse_grid, help="`utilisation`: accounts x seconds, e.g. 8x0.2,100x1")
    parser.add_argument("--name", default="latest", help="folder in bench/results/ for the results")
    parser.add_argument("--keep", action="store_true", help="keep that folder's results of other scenarios")
    parser.add_argument(
        "--smoke", action="store_true", help="one run with a small load, to check that everything works"
    )
    parser.add_argument("--rows", default=",".join(ROWS), help="`faults`: rows to run, separated by commas")
    parser.add_argument("--cuts", default=",".join(CUTS), help=f"`hosts`: links to cut, of {', '.join(CUTS)}")
    parser.add_argument("--small", action="store_true", help="`faults`: a small farm; does not save results")
    parser.add_argument("--stream", type=float, help="`faults`: seconds that one stream takes")
    parser.add_argument("--https", action="store_true", help="`faults`: reach the upstream over TLS")
    parser.add_argument("--seed", type=int, default=1, help="`faults`: decides what is broken, and when")
    parser.add_argument("--json", action="store_true", help="`faults` and the farm alone: print JSON")
    return parser.parse_args()


def parse_grid(text: str) -> tuple[tuple[int, float], ...]:
    """Parses accounts and seconds from `8x0.2,100x1`."""
    pairs = (pair.split("x") for pair in text.split(","))
    return tuple((int(accounts), float(seconds)) for accounts, seconds in pairs)


def describe_scenarios(title: str, scenarios: Mapping[str, object]) -> str:
    """A list of scenarios for the help, from the first lines of their docstrings."""
    lines = [f"  {name:12} {(scenario.__doc__ or '').splitlines()[0]}" for name, scenario in scenarios.items()]
    return f"\n{title}:\n" + "\n".join(lines) + "\n"


def describe_machine() -> dict[str, object]:
    return {
        "machine": f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GB, {platform.platform()}",
        "python": platform.python_version(),
    }


def select_systems(names: str) -> list[System]:
    """The installed systems of those named (`all`, or separated by commas); prints which are missing."""
    systems = []
    for name in SYSTEMS if names == "all" else names.split(","):
        if SYSTEMS[name].find_version():
            systems.append(SYSTEMS[name])
        else:
            print(f"farm: {name} is not installed and is skipped", file=sys.stderr)
    return systems


def compare_systems(arguments: argparse.Namespace, names: Sequence[str]) -> bool:
    """Runs these scenarios; returns whether every requirement that was measured is met."""
    systems = select_systems(arguments.systems)
    scale = SMOKE if arguments.smoke else replace(CompareScale(), seconds=arguments.seconds)
    scale = replace(scale, grid=arguments.grid) if arguments.grid else scale
    runs = 1 if arguments.smoke else arguments.runs
    versions = ", ".join(f"{system.name} {system.find_version()}" for system in systems)
    folder = RESULTS / arguments.name
    samples, measured = read(folder) if arguments.keep else ([], {})
    for name in names:
        samples = [sample for sample in samples if sample.scenario != name]
        samples += measure(systems, name, scale, runs)
        figures = Figures(samples)
        measured[name] = f"{time.strftime('%Y-%m-%d %H:%M')}, {runs} runs, loads of {scale.seconds:g} s"
        write(folder, figures, {**describe_machine(), "versions": versions, "measured": measured})
    print(format_requirements(figures))
    print(f"all figures: {folder / 'README.md'}")
    evaluated = [requirement.evaluate(figures) for requirement in REQUIREMENTS]
    return all(holds for _, _, holds in filter(None, evaluated))


def measure_farm(arguments: argparse.Namespace, names: Sequence[str]) -> bool:
    """Runs these checks, and the rows of `faults`; returns whether every bound holds."""
    measurements: list[Measurement] = []
    for name in names:
        print(f"farm: measuring {name}", file=sys.stderr, flush=True)
        if name == "faults":
            scale = replace(SMALL if arguments.small else FaultScale(), seed=arguments.seed, https=arguments.https)
            scale = replace(scale, stream=arguments.stream) if arguments.stream else scale
            for row in arguments.rows.split(","):
                print(f"farm: breaking {row}", file=sys.stderr, flush=True)
                measurements += ROWS[row](scale)
        elif name == "hosts":
            measurements += measure_cuts(arguments.cuts.split(","))
        else:
            measurements += CHECKS[name](arguments.seconds)
    rows = [vars(measurement) for measurement in measurements]
    results = {"time": time.strftime("%Y-%m-%d %H:%M"), **describe_machine(), "measured": rows}
    if not arguments.small:
        (RESULTS / arguments.name).mkdir(parents=True, exist_ok=True)
        (RESULTS / arguments.name / "alone.json").write_text(json.dumps(results, indent=1) + "\n")
    if arguments.json:
        print(json.dumps(results, indent=1))
    else:
        print_table(measurements)
    return all(measurement.holds is not False for measurement in measurements)


def print_table(measurements: list[Measurement]) -> None:
    for row in measurements:
        verdict = "" if row.holds is None else "  ok" if row.holds else "  MISSED"
        print(f"{row.scenario:12} {row.name:55} {row.value:>12} {row.bound:>14}{verdict}")


def main() -> int:
    """Runs the selected scenarios; returns exit code 1 when a bound is missed."""
    arguments = parse_arguments()
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    names = arguments.scenario or [*SCENARIOS, *CHECKS, "faults", "hosts"]
    namespaced = [name for name in names if name in NEED_NAMESPACES]
    if namespaced and (obstacle := find_obstacle()):
        print(f"farm: skipped: {', '.join(namespaced)}; {obstacle}", file=sys.stderr)
        names = [name for name in names if name not in NEED_NAMESPACES]
        if not names:
            return 2
    compared = [name for name in names if name in SCENARIOS]
    others = [name for name in names if name not in SCENARIOS]
    with end_all_on_exit():
        met = compare_systems(arguments, compared) if compared else True
        return 0 if (measure_farm(arguments, others) if others else True) and met else 1


if __name__ == "__main__":
    sys.exit(main())
