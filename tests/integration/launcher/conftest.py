"""Runs commands in this process, on the tests' Redis."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from redis import Redis

from launcher.__main__ import farm
from shared.credentials.unsealing import Unsealer

Run = Callable[..., Result]


@pytest.fixture
def run(redis: Redis, redis_url: str, unsealer: Unsealer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `./farm` with these arguments, in a directory of its own."""
    for name, value in {
        "REDIS_URL": redis_url,
        "FARM_SECRET_KEY": "a secret key for tests",
        "FARM_DATA_DIR": str(tmp_path / "data"),
        "CALLED_FROM": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments, **options: CliRunner().invoke(farm, arguments, **options)
