"""Starts that are refused because of the credentials in the data dir; without coverage, which costs half a minute."""

import json
import subprocess
from pathlib import Path

import requests

from tests.environment import ROOT
from tests.system.command_line import FARM, assert_start_fails, build_environment, run_command


def test_wrong_secret_key_and_simulated_beside_real_credentials_are_refused(tmp_path: Path):
    """One data dir for both, because each start takes seconds."""
    env = build_environment(tmp_path / "data")
    run_command(env, "up", "--detach")
    run_command(env, "stop")
    wrong_key = {**env, "FARM_SECRET_KEY": "another"}
    assert_start_fails(wrong_key, tmp_path / "data", "FARM_SECRET_KEY", "nothing was changed")
    assert run_command(env, "up", "--detach").returncode == 0
    assert len(run_command(env, "credentials", "list").stdout.splitlines()) == 21
    run_command(env, "stop")
    real = {**env, "FARM_UPSTREAM_URL": "http://127.0.0.1:9/v1", "FARM_TOKEN_URL": "http://127.0.0.1:9/token"}
    started = run_command(real, "up", "--detach")
    page = f"http://127.0.0.1:{env['PORT']}/admin/accounts/import"
    assert (started.returncode, f"no usable credential yet: add some at {page} or" in started.stdout) == (0, True)
    assert run_command(real, "credentials", "list", "--json").stdout.strip() == "[]"
    ready = requests.get(f"http://127.0.0.1:{env['PORT']}/readyz", timeout=10)
    assert (ready.status_code, "credentials add" in ready.text) == (503, True)
    added = subprocess.run(
        [*FARM, "credentials", "add", "--label", "simulator"], env=real, cwd=ROOT, input="a-real-token", text=True
    )
    assert added.returncode == 0
    refused = run_command(env, "restart")
    assert (refused.returncode, "FARM_UPSTREAM_URL is not set" in refused.stderr) == (1, True)
    assert run_command(real, "stop").stdout == "stopped\n"
    assert_start_fails(env, tmp_path / "data", "FARM_UPSTREAM_URL is not set", "1 credentials", "config set")
    elsewhere = real | {"FARM_TOKEN_URL": "http://localhost:9/token"}
    started = run_command(elsewhere, "up", "--detach")
    assert (started.returncode, "1 credentials belong to another token endpoint" in started.stdout) == (0, True)
    (kept,) = json.loads(run_command(real, "credentials", "list", "--json").stdout)
    assert (kept["label"], kept["state"], kept["token_origin"]) == ("simulator", "foreign", "http://127.0.0.1:9")
    assert kept["refreshed_at"] == 0
    run_command(real, "stop")
