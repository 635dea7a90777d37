"""The systemd unit fits the launcher and is hardened, as systemd itself reads it."""

import os
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from launcher.commands.lifecycle import STOP_GRACE_SECONDS
from shared.settings.schema import Settings
from tests.environment import ROOT

UNIT = ROOT / "deploy" / "token-farm.service"
HOME = "/opt/token-farm"


def read_unit() -> dict[str, list[str]]:
    """Setting -> its values, in their order."""
    values = defaultdict(list)
    for name, value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE):
        values[name].append(value)
    return values


def run_analyze(*arguments: str) -> "subprocess.CompletedProcess[str]":
    if not shutil.which("systemd-analyze"):
        message = "systemd-analyze is not installed"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=120)


def test_exposure_of_the_unit_is_below_three_of_ten():
    result = run_analyze("security", "--offline=true", "--threshold=20", "--no-pager", str(UNIT))
    assert result.returncode == 0, result.stdout[-500:] + result.stderr
    assert re.search(r"Overall exposure level for token-farm.service: [01]\.\d", result.stdout)


def test_systemd_understands_every_line_of_the_unit(tmp_path: Path):
    # Its program is not installed here; systemd would complain of that alone.
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(f"{HOME}/farm ", f"{ROOT}/farm "))
    result = run_analyze("verify", "--man=no", str(unit))
    complaints = [line for line in result.stderr.splitlines() if UNIT.name in line]
    assert complaints == []


def test_unit_runs_the_launcher_without_privileges():
    unit = read_unit()
    assert unit["User"] == ["farm"]
    assert (unit["Type"], unit["NotifyAccess"]) == (["notify"], ["main"])
    assert unit["ExecStart"] == [f"{HOME}/farm up"]
    assert unit["ExecReload"] == [f"{HOME}/farm reload"]
    assert unit["AmbientCapabilities"] == unit["CapabilityBoundingSet"] == ["CAP_NET_BIND_SERVICE"]


def test_gunicorn_may_give_its_unix_socket_to_its_own_user():
    # Behind Caddy, gunicorn calls chown, which @privileged contains; a later line wins.
    assert read_unit()["SystemCallFilter"] == ["@system-service", "~@privileged", "@chown"]
    assert "CAP_CHOWN" not in read_unit()["CapabilityBoundingSet"][0]


def test_what_the_service_may_not_install_is_installed_before_it_starts():
    data, packages = read_unit()["ExecStartPre"]
    assert data.startswith("+/usr/bin/install -d -o farm ")
    assert packages.startswith("+/usr/bin/setpriv --reuid=farm ")
    assert "./farm config check --fetch" in packages


def test_unit_lets_only_the_data_dir_be_written():
    unit = read_unit()
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["ReadWritePaths"] == [f"-{HOME}/data"]
    assert Path(HOME, Settings.data_dir) == Path(HOME, "data")


def test_unit_waits_as_long_as_the_stop_of_the_farm_may_take():
    unit = read_unit()
    assert int(unit["TimeoutStopSec"][0]) >= 2 * Settings.drain + STOP_GRACE_SECONDS
    assert unit["KillMode"] == ["mixed"]
