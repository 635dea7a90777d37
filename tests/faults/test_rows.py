"""The rows of `./farm bench faults`, smaller: whatever is broken, every count that does not depend on speed holds."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from bench.faults import ROWS
from tests.conftest import ROOT, clean_environment

#: Rows that run at once: each waits most of its time.
AT_ONCE = 2
LONGEST_FIRST = list(ROWS)[::-1]
Measured = list[dict[str, Any]]


def measure(row: str) -> Measured:
    """One row, on a farm of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", "faults", "--small", "--rows", row, "--json"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    found: Measured = json.loads(done.stdout)["measured"]
    return found


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest) -> Iterator[dict[str, "Future[Measured]"]]:
    """The rows that were asked for, on their way; the longest first."""
    wanted = [item.callspec.params["row"] for item in request.session.items if item.module is request.module]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {row: pool.submit(measure, row) for row in LONGEST_FIRST if row in wanted}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("row", LONGEST_FIRST)
def test_what_must_hold_holds(rows: dict[str, "Future[Measured]"], row: str):
    exact = [one for one in rows[row].result() if one["exact"]]
    assert exact
    assert [one for one in exact if not one["holds"]] == []
