"""The admin API against its own document, by schemathesis: no made-up request finds an answer that it lacks."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.environment import ROOT
from tests.system.farm import ADMIN, Farm, start_farm
from tests.upstream import start_simulator

#: A value may be well formed and still be no network (422).
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422", "503"]
"""
#: Made-up requests for each operation, beside those for each bound and each kind of mistake.
EXAMPLES = "5"


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Farm]:
    """A farm whose records may be changed and removed at will."""
    process, upstream = start_simulator("--accounts", "4")
    farm = start_farm(tmp_path / "data", upstream, 3)
    yield farm
    assert farm.command("stop").returncode == 0
    process.terminate()
    process.wait()
    assert process.stdout
    process.stdout.close()


@pytest.mark.slow
def test_every_answer_is_as_the_document_says(victim: Farm, tmp_path: Path):
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    command = (
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(tmp_path / "schemathesis.toml")),
        *("run", f"{victim.url}/admin/api/v1/openapi.json", "--header", f"Authorization: Bearer {ADMIN}"),
        *("--max-examples", EXAMPLES, "--seed", "1", "--workers", "4", "--no-color"),
    )
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout[-8000:]
    assert "Traceback" not in victim.log()
