"""Installs the programs under test in the background; their tests run last, so that it costs hardly any time."""

import pytest

from tests.system.clients.installation import HERE, Installation

STARTED = pytest.StashKey[Installation]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.is_relative_to(HERE))


def pytest_collection_finish(session: pytest.Session) -> None:
    is_needed = any(item.path.is_relative_to(HERE) for item in session.items)
    if is_needed and not session.config.option.collectonly:
        session.config.stash[STARTED] = Installation()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if installation := session.config.stash.get(STARTED, None):
        installation.stop()


@pytest.fixture(scope="session")
def installation(request: pytest.FixtureRequest) -> Installation:
    return request.config.stash[STARTED]
