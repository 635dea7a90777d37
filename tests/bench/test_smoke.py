"""`./farm bench --smoke`: every scenario runs without errors and a report is written. Speed is not judged."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.compare.scenarios import SCENARIOS
from tests.environment import ROOT, clean_environment

#: For six farms to start, serve and stop while other tests run.
TIMEOUT_SECONDS = 400
RESULTS_FOLDER = ROOT / "bench" / "results" / "smoke-test"


@pytest.mark.timeout(TIMEOUT_SECONDS + 20)
def test_the_benchmark_runs_and_reports():
    subprocess.run(
        [sys.executable, "-m", "bench", *SCENARIOS, "--smoke", "--name", RESULTS_FOLDER.name],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    figures = json.loads((RESULTS_FOLDER / "results.json").read_text())["figures"]
    assert {figure["scenario"] for figure in figures} == set(SCENARIOS)
    of_farm = [figure for figure in figures if figure["system"] == "farm"]
    failures = [figure for figure in of_farm if figure["name"] in ("collisions", "errors at clients")]
    assert len(failures) >= 7
    assert [figure for figure in failures if set(figure["values"]) != {0}] == []
    medians = {(figure["scenario"], figure["name"]): figure["median"] for figure in of_farm}
    assert medians["utilisation", "share of the ideal"] > 0
    assert medians["streaming", "CPU us per chunk: all"] > 0
    assert {Path(file).name for file in RESULTS_FOLDER.iterdir()} >= {
        "README.md",
        *(f"{name}.svg" for name in SCENARIOS),
    }
