"""Fixtures of the tests of batches."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from redis import Redis

from tests.integration.web.batches.batch_harness import BatchHarness

StartFront = Callable[..., BatchHarness]


@pytest.fixture
def start_front(redis: Redis, redis_url: str, tmp_path: Path) -> Iterator[Callable[..., BatchHarness]]:
    """Starts fronts that share a directory of files; arguments are settings."""
    with ExitStack() as fronts:
        yield lambda **settings: fronts.enter_context(closing(BatchHarness(redis, redis_url, tmp_path, **settings)))
