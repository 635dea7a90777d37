"""The client for S3 is installed by its hash, where a bucket is configured and nowhere else."""

import tomllib
from pathlib import Path

import pytest

from launcher.processes import locked_extra
from launcher.processes.s3_client import LOCK_FILE, PACKAGE, ensure_s3_client
from shared.settings.schema import Settings
from tests.environment import ROOT


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Lock files that were installed."""
    lock_files: list[Path] = []
    monkeypatch.setattr(locked_extra, "install", lambda lock_file, *_: lock_files.append(lock_file))
    return lock_files


def test_client_is_locked_by_hash_as_an_extra_of_its_own():
    locked = LOCK_FILE.read_text()
    assert locked.startswith(f"{PACKAGE}=={locked_extra.read_locked_version(LOCK_FILE, PACKAGE)} \\\n")
    assert locked.count("--hash=sha256:") >= 4
    assert locked in (ROOT / "requirements-dev.lock").read_text()
    assert PACKAGE not in (ROOT / "requirements.lock").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [requirement.partition(">")[0] for requirement in extras["s3"]] == [PACKAGE]


@pytest.mark.parametrize(("url", "count"), [("", 0), ("file:///var/files", 0), ("s3://bucket", 1)])
def test_client_is_installed_where_a_bucket_is_configured(
    installed: list[Path], monkeypatch: pytest.MonkeyPatch, url: str, count: int
):
    monkeypatch.setattr(locked_extra, "find_version", lambda _: None)
    ensure_s3_client(Settings(files_url=url), lambda _: None)
    assert installed == [LOCK_FILE] * count


def test_client_of_the_locked_version_is_not_installed_again(installed: list[Path], monkeypatch: pytest.MonkeyPatch):
    version = locked_extra.read_locked_version(LOCK_FILE, PACKAGE)
    monkeypatch.setattr(locked_extra, "find_version", lambda _: version)
    ensure_s3_client(Settings(files_url="s3://bucket"), lambda _: None)
    assert installed == []
    monkeypatch.setattr(locked_extra, "find_version", lambda _: "0.0.1")
    ensure_s3_client(Settings(files_url="s3://bucket"), lambda _: None)
    assert installed == [LOCK_FILE]
