"""`./farm bench --smoke`: every scenario runs, every answer is right, and a report is made. No figure is judged."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.compare.scenarios import SCENARIOS
from tests.conftest import ROOT, clean_environment

#: Seconds that seven farms may take to start, serve and stop beside the other half of the tests.
PATIENCE = 400
RESULTS = ROOT / "bench" / "results" / "smoke-test"


@pytest.mark.timeout(PATIENCE + 20)
def test_the_benchmark_runs_and_reports():
    subprocess.run(
        [sys.executable, "-m", "bench", *SCENARIOS, "--smoke", "--name", RESULTS.name],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    found = json.loads((RESULTS / "results.json").read_text())["figures"]
    assert {one["scenario"] for one in found} == set(SCENARIOS)
    exact = [one for one in found if one["system"] == "farm" and one["name"] in ("collisions", "errors at clients")]
    assert len(exact) >= 7
    assert [one for one in exact if set(one["values"]) != {0}] == []
    used = {(one["scenario"], one["name"]): one["median"] for one in found if one["system"] == "farm"}
    assert used["utilisation", "share of the ideal"] > 0
    assert used["streaming", "CPU us per chunk: all"] > 0
    assert {Path(one).name for one in RESULTS.iterdir()} >= {"README.md", *(f"{name}.svg" for name in SCENARIOS)}
