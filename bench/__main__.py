"""`./farm bench`: measures what the farm promises, in one run; prints a table and keeps it in bench/results/."""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.faults import ROWS, SMALL, Scale
from bench.measured import Measured
from bench.scenarios import SCENARIOS

RESULTS = Path(__file__).parent / "results"


def arguments() -> argparse.Namespace:
    """The command line."""
    lines = [
        f"  {name:12} {scenario.__doc__.splitlines()[0] if scenario.__doc__ else ''}"
        for name, scenario in SCENARIOS.items()
    ]
    lines.append("  faults       What holds while clients stream and something is broken, row by row.")
    parser = argparse.ArgumentParser(
        prog="farm bench",
        description="Measure the farm. Scenarios:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenario", nargs="*", choices=[*SCENARIOS, "faults", []], help="which to run (default: all)")
    parser.add_argument("--rows", default=",".join(ROWS), help="of `faults`: which, with commas")
    parser.add_argument(
        "--small", action="store_true", help="of `faults`: a small farm and short loads; keeps no result"
    )
    parser.add_argument("--seed", type=int, default=1, help="of `faults`: what is broken, and when")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each load")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


def faults(rows: list[str], scale: Scale) -> list[Measured]:
    """Faults under load, row by row."""
    measured: list[Measured] = []
    for row in rows:
        print(f"farm: breaking {row}", file=sys.stderr, flush=True)
        measured += ROWS[row](scale)
    return measured


def machine() -> dict[str, str]:
    """What it was measured on."""
    return {"python": platform.python_version(), "system": platform.platform(), "time": time.strftime("%Y-%m-%d %H:%M")}


def show(measured: list[Measured]) -> None:
    """A table, a line a fact."""
    for one in measured:
        verdict = "" if one.holds is None else "  ok" if one.holds else "  MISSED"
        print(f"{one.scenario:12} {one.name:55} {one.value:>12} {one.bound:>14}{verdict}")


def main() -> int:
    """Runs the scenarios; exit code 1 when a bound is missed."""
    given = arguments()
    measured: list[Measured] = []
    for name in given.scenario or [*SCENARIOS, "faults"]:
        if name == "faults":
            measured += faults(given.rows.split(","), replace(SMALL if given.small else Scale(), seed=given.seed))
            continue
        run: Callable[[float], list[Measured]] = SCENARIOS[name]
        print(f"farm: measuring {name}", file=sys.stderr, flush=True)
        measured += run(given.seconds)
    facts = {"machine": machine(), "measured": [vars(one) for one in measured]}
    if not given.small:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "latest.json").write_text(json.dumps(facts, indent=2) + "\n")
    if given.json:
        print(json.dumps(facts, indent=2))
    else:
        show(measured)
    return 1 if any(one.holds is False for one in measured) else 0


if __name__ == "__main__":
    sys.exit(main())
