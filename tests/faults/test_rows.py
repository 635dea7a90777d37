"""The rows of `./farm bench faults`, at the small size: every bound that does not depend on speed holds."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from bench.faults import ROWS
from tests.environment import ROOT, clean_environment

#: Each row spends most of its time waiting.
CONCURRENT_ROWS = 2
#: All but the soak, which would hardly do more than start at this size, and what tests/system/test_replay.py covers.
LONGEST_FIRST = [row for row in reversed(ROWS) if row not in ("soak", "cut-clients")]
Measurements = list[dict[str, Any]]


def measure_row(row: str) -> Measurements:
    completed = subprocess.run(
        [sys.executable, "-m", "bench.faults", row],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.stdout, completed.stderr
    measurements: Measurements = json.loads(completed.stdout)
    return measurements


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest) -> Iterator[dict[str, "Future[Measurements]"]]:
    """Starts the selected rows, the longest first; maps each to its future result."""
    selected = [item.callspec.params["row"] for item in request.session.items if item.module is request.module]
    with ThreadPoolExecutor(CONCURRENT_ROWS) as pool:
        yield {row: pool.submit(measure_row, row) for row in LONGEST_FIRST if row in selected}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("row", LONGEST_FIRST)
def test_the_exact_bounds_of_a_row_hold(rows: dict[str, "Future[Measurements]"], row: str):
    exact = [measurement for measurement in rows[row].result() if measurement["exact"]]
    assert exact
    assert [measurement for measurement in exact if not measurement["holds"]] == []
