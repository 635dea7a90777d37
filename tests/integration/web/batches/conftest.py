"""Fixtures of the tests of batches."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from redis import Redis

from tests.integration.web.batches.batch_harness import BatchHarness
from web.batches import batch_run, batch_runner
from web.batches.progress import hindrance

StartFront = Callable[..., BatchHarness]


@pytest.fixture
def start_front(redis: Redis, redis_url: str, tmp_path: Path) -> Iterator[Callable[..., BatchHarness]]:
    """Starts fronts that share a directory of files; arguments are settings."""
    with ExitStack() as fronts:
        yield lambda **settings: fronts.enter_context(closing(BatchHarness(redis, redis_url, tmp_path, **settings)))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are looked for, and looked at, more often."""
    monkeypatch.setattr(batch_runner, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(batch_run, "CHECK_SECONDS", 0.1)
    monkeypatch.setattr(hindrance, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(batch_run, "ORPHAN_CHECK_SECONDS", 0.3)
