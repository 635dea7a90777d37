"""What operators do with a running farm, from one page to the next, in each language and theme."""

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.browser.chromium import Chromium, Tab
from tests.browser.conftest import open_console
from tests.browser.console_pages import enter, read_texts, shows
from tests.system.farm import KEY, Farm, chat_body
from tests.waiting import eventually

#: Requests at once, enough of them for their failures to open the breaker.
CALLERS = 12


@pytest.fixture(params=[("en", "light"), ("zh", "dark")], ids="-".join)
def tab(request: pytest.FixtureRequest, farm: Farm, open_browser: Callable[[str], Chromium]) -> Iterator[Tab]:
    with open_console(open_browser("h2"), farm, *request.param) as tab:
        yield tab


def test_outage_is_seen_while_it_lasts_and_replayed_afterwards(tab: Tab, farm: Farm):
    # Of two keys: the faults of a single one are taken for its own while another is served.
    other = farm.admin("POST", "/keys", json={"name": "other"}).json()["key"]
    farm.upstream.faults(server_error=1)
    callers = [threading.Thread(target=ask, args=(farm, (KEY, other)[number % 2])) for number in range(CALLERS)]
    for caller in callers:
        caller.start()
    eventually(lambda: shows(tab, ".pool h2 .state.dead") and shows(tab, ".alerts li"))
    farm.upstream.faults()
    eventually(lambda: not shows(tab, ".pool h2 .state.dead"))
    for caller in callers:
        caller.join()
    tab.go(f"{farm.url}/admin/events?kind=breaker_opened")
    eventually(lambda: tab.go(tab.evaluate("location.href")) or shows(tab, "a[href*='/admin/events/']"))
    tab.click("a[href*='/admin/events/']")
    rows = read_texts(tab, "main table tbody tr")
    assert len(rows) >= 3, "faults of several accounts have opened it"
    assert all(any(account["id"] in href for account in farm.credentials()) for href in find_accounts(tab))


def find_accounts(tab: Tab) -> list[str]:
    found = list(tab.evaluate("[...document.querySelectorAll('main td a[href*=\"/accounts/\"]')].map(a => a.href)"))
    assert found
    return found


def test_key_is_made_used_up_and_seen_at_its_limit(tab: Tab, farm: Farm):
    tab.go(f"{farm.url}/admin/keys/new")
    for name, value in {"name": "laptop", "rpm": "2", "max_waiting": "0"}.items():
        enter(tab, f"#f-{name}", value)
    tab.click("main form button[type=submit]")
    (secret,) = set(re.findall(r"sk-[\w-]{20,}", tab.evaluate("document.querySelector('main').innerText")))
    replies = [ask(farm, secret) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    tab.click("main a.button")
    assert "rate_limit_exceeded" in eventually(lambda: find_refusals(tab))
    assert "2 / 2" in " ".join(read_texts(tab, "main dd"))


def ask(farm: Farm, secret: str) -> requests.Response:
    headers: dict[str, Any] = {"authorization": f"Bearer {secret}"}
    return requests.post(f"{farm.url}/v1/chat/completions", json=chat_body(), headers=headers, timeout=120)


def find_refusals(tab: Tab) -> str:
    """The page's text when it has the refusal, which the front writes within a second or so; '' before."""
    tab.go(tab.evaluate("location.href"))
    text = str(tab.evaluate("document.querySelector('main').innerText"))
    return text if "rate_limit_exceeded" in text else ""
