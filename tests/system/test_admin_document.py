"""The admin API responds to made-up requests as its OpenAPI document says (schemathesis)."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared import keys
from shared.redis_connection.client import connect
from tests.environment import ROOT
from tests.system.farm import ADMIN, Farm, start_farm
from tests.upstream import start_simulator

#: A well-formed value may still be an invalid network (422).
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422", "503"]
"""
#: Random requests per operation, besides those for each bound and each kind of mistake.
EXAMPLES = "5"


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Farm]:
    """A farm whose records may be changed and removed."""
    process, upstream = start_simulator("--accounts", "4")
    farm = start_farm(tmp_path / "data", upstream, 3)
    yield farm
    assert farm.command("stop").returncode == 0
    process.terminate()
    process.wait()
    assert process.stdout
    process.stdout.close()


def run_without_login_delays(victim: Farm, command: tuple[str, ...]) -> tuple[int, str]:
    """Runs a command; meanwhile wrong admin tokens are forgotten, because each makes the next one slower."""
    redis = connect(victim.redis_url())
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while True:
        try:
            output, _ = process.communicate(timeout=0.2)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            redis.delete(keys.failed_logins("127.0.0.1"), keys.FAILED_LOGINS_IN_ALL)


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_every_response_follows_the_openapi_document(victim: Farm, tmp_path: Path):
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    # One worker: ast.parse in several threads at once fails now and then in Python 3.11 (SystemError).
    command = (
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(tmp_path / "schemathesis.toml")),
        *("run", f"{victim.url}/admin/api/v1/openapi.json", "--header", f"Authorization: Bearer {ADMIN}"),
        *("--max-examples", EXAMPLES, "--seed", "1", "--workers", "1", "--no-color"),
        *("--request-timeout", "120"),
        # It would replace the front that is being asked, again and again; test_reload.py tries it.
        *("--exclude-path", "/admin/api/v1/reload"),
    )
    code, output = run_without_login_delays(victim, command)
    assert code == 0, output[-8000:]
    assert "Traceback" not in victim.log()
