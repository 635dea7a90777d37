"""The playground in a browser: it streams, stops the upstream, shows what the farm did, and writes text only."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browser.chromium import Chromium, Tab
from tests.browser.console_pages import enter, enter_token
from tests.system.farm import ADMIN, Farm
from tests.waiting import eventually

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def tab(farm: Farm, open_browser: Callable[[str], Chromium]) -> Iterator[Tab]:
    """The playground, opened by way of the login."""
    tab = open_browser("h2").open_tab(f"{farm.url}/admin/login?next=/admin/playground&lang=en")
    enter_token(tab, ADMIN)
    assert tab.evaluate("location.pathname") == "/admin/playground"
    yield tab
    tab.call("Network.clearBrowserCookies")
    tab.close()


def send(tab: Tab, **fields: str) -> None:
    for name, value in {"model": "sim-translate", "user": "Hello", "credential": "", **fields}.items():
        enter(tab, f"#f-{name}", value)
    tab.evaluate("document.querySelector('#ask').requestSubmit()")


def read(tab: Tab, name: str) -> str:
    return str(tab.evaluate(f"document.querySelector('[data-show={name}]').textContent"))


def wait_for(tab: Tab, state: str) -> None:
    eventually(lambda: read(tab, "state") == state)


def test_reply_is_streamed_with_what_the_farm_did(tab: Tab, farm: Farm):
    send(tab, user=HOSTILE, system="it's")
    wait_for(tab, "Complete")
    assert read(tab, "text")
    assert "data: [DONE]" in read(tab, "raw")
    assert read(tab, "attempts") == "1"
    assert " + " in read(tab, "tokens")
    (account,) = [c for c in farm.credentials() if c["id"] in tab.evaluate("document.querySelector('dd a').href")]
    assert read(tab, "account") in (account["label"], account["account"], account["id"])
    curl = read(tab, "curl")
    assert HOSTILE in curl
    assert "it'\\''s" in curl
    assert "$API_KEY" in curl
    assert tab.evaluate("document.querySelectorAll('#answer img').length") == 0
    assert tab.evaluate("location.search") == "?model=sim-translate"


def test_stop_cancels_the_request_at_the_upstream(tab: Tab, farm: Farm):
    farm.upstream.pace(chunks=1000, chunk_delay=0.1)
    send(tab, user="Hello " * 400)
    wait_for(tab, "The reply comes")
    eventually(lambda: read(tab, "text"))
    tab.evaluate("document.querySelector('#stop').click()")
    wait_for(tab, "Stopped: the upstream's request was cancelled")
    eventually(lambda: farm.upstream.counters()["in_flight"] == 0)
    farm.upstream.pace()
    chosen: dict[str, Any] = farm.credentials()[0]
    send(tab, credential=chosen["id"])
    wait_for(tab, "Complete")
    assert chosen["id"] in tab.evaluate("document.querySelector('[data-show=account] a').href")


def test_error_is_shown(tab: Tab):
    send(tab, credential="nobody")
    wait_for(tab, "It failed.")
    assert read(tab, "error").startswith("404 not_found")
