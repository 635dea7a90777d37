"""`./farm bench`: measures what the farm promises, in one run; prints a table and keeps it in bench/results/."""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.scenarios import SCENARIOS, Measured

RESULTS = Path(__file__).parent / "results"


def arguments() -> argparse.Namespace:
    """The command line."""
    lines = [
        f"  {name:12} {scenario.__doc__.splitlines()[0] if scenario.__doc__ else ''}"
        for name, scenario in SCENARIOS.items()
    ]
    parser = argparse.ArgumentParser(
        prog="farm bench",
        description="Measure the farm. Scenarios:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenario", nargs="*", choices=[*SCENARIOS, []], help="which to run (default: all)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each load")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


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
    for name in given.scenario or SCENARIOS:
        run: Callable[[float], list[Measured]] = SCENARIOS[name]
        print(f"farm: measuring {name}", file=sys.stderr, flush=True)
        measured += run(given.seconds)
    facts = {"machine": machine(), "measured": [vars(one) for one in measured]}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.json").write_text(json.dumps(facts, indent=2) + "\n")
    if given.json:
        print(json.dumps(facts, indent=2))
    else:
        show(measured)
    return 1 if any(one.holds is False for one in measured) else 0


if __name__ == "__main__":
    sys.exit(main())
