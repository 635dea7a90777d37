"""The rows of `./farm bench faults`, smaller: whatever is broken, every count that does not depend on speed holds."""

import json
import subprocess
import sys

import pytest

from bench.faults import ROWS
from tests.conftest import ROOT, clean_environment


@pytest.mark.timeout(240)
@pytest.mark.parametrize("row", ROWS)
def test_what_must_hold_holds(row: str):
    done = subprocess.run(
        [sys.executable, "-m", "bench", "faults", "--small", "--rows", row, "--json"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    measured = [one for one in json.loads(done.stdout)["measured"] if one["exact"]]
    assert measured
    assert [one for one in measured if not one["holds"]] == []
