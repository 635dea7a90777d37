"""A farm with more requests than accounts in the console: who is next, and what is seen of killed workers."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.browser.chromium import Chromium, Tab
from tests.browser.conftest import ACCOUNTS, open_console
from tests.browser.console_pages import read_text, read_texts, shows
from tests.system.farm import Farm, chat_body
from tests.waiting import eventually

#: API key -> its weight.
WEIGHTS = {"browser": 1, "subtitles": 2, "books": 5}
#: Requests that wait, and turns of as many as there are accounts.
REQUESTS, TURNS = 500, 3
#: Seconds between two pieces of a response: whatever waits for the second one waits until that is changed.
NEVER = 600
IDS_SCRIPT = "[...document.querySelectorAll({})].map(link => link.href.split('/').at(-1))"


@pytest.fixture
def tab(browser: Chromium, stocked_farm: Farm) -> Iterator[Tab]:
    with open_console(browser, stocked_farm, "zh", "dark") as tab:
        tab.go(f"{stocked_farm.url}/admin/queue")
        yield tab


@contextmanager
def send_requests(farm: Farm, count: int) -> Iterator[list[socket.socket]]:
    """Streams of the keys by turns, each on a connection of its own; nobody reads them."""
    secrets = [
        farm.admin("POST", "/keys", json={"name": name, "weight": weight}).json()["key"]
        for name, weight in WEIGHTS.items()
    ]
    body = json.dumps(chat_body(stream=True))
    with ExitStack() as stack:
        connections = []
        for number in range(count):
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {farm.url}\r\ncontent-type: application/json\r\n"
            head += f"authorization: Bearer {secrets[number % len(secrets)]}\r\ncontent-length: {len(body)}\r\n\r\n"
            connections.append(stack.enter_context(socket.create_connection(("127.0.0.1", farm.port))))
            connections[-1].sendall((head + body).encode())
        yield connections


def find_ids(tab: Tab, selector: str) -> list[str]:
    """Ids of the requests in a table of the page."""
    return list(tab.evaluate(IDS_SCRIPT.format(json.dumps(f"{selector} a[href*='/requests/']"))))


def test_five_hundred_requests_of_three_keys_are_started_in_the_order_that_is_shown(tab: Tab, stocked_farm: Farm):
    """In turns: no request ends before all of its turn have begun, so that no charge is corrected meanwhile."""
    farm = stocked_farm
    farm.upstream.pace(chunks=3, chunk_delay=NEVER)
    tab.click("button[value=pause]")
    with send_requests(farm, REQUESTS):
        for waiting in range(REQUESTS, REQUESTS - TURNS * ACCOUNTS, -ACCOUNTS):
            eventually(lambda waiting=waiting: read_text(tab, "#live .figure b").startswith(str(waiting)))
            tab.go(f"{farm.url}/admin/queue")
            shown = find_ids(tab, "#live section:first-child table:first-of-type td:first-child")
            assert len(shown) == ACCOUNTS
            tab.click("button[value=resume]")
            eventually(lambda: len(list_running(farm)) == ACCOUNTS)
            assert list_running(farm) == shown
            tab.click("button[value=pause]")
            for request_id in shown:
                farm.admin("POST", f"/requests/{request_id}/cancel", json={})
            eventually(lambda: not list_running(farm))
        tab.click("button[value=resume]")


def list_running(farm: Farm) -> list[str]:
    """The running requests, in the order in which they were started."""
    return [each["request"] for each in farm.admin("GET", "/running", params={"limit": 100}).json()["data"]]


def test_killed_worker_process_is_seen_and_its_accounts_and_requests_come_back(tab: Tab, stocked_farm: Farm):
    farm = stocked_farm
    farm.upstream.pace(delay=NEVER)
    (process,) = farm.processes("-m workers")
    supervisor = process.parent()
    assert supervisor
    with send_requests(farm, ACCOUNTS) as connections:
        eventually(lambda: all(re.search("bb-?$", letters) for letters in read_tape(tab)))
        # The next attempts are answered at once.
        farm.upstream.pace()
        supervisor.suspend()
        try:
            process.kill()
            eventually(lambda: all(re.search("bb--+$", letters) for letters in read_tape(tab)))
            tab.click("nav a[href$='/accounts']")
            eventually(lambda: tab.go(tab.evaluate("location.href")) or all(read_texts(tab, "td.why")))
        finally:
            supervisor.resume()
        tab.go(f"{farm.url}/admin/queue")
        eventually(lambda: all(re.search("bb--+[a-z]+-?$", letters) for letters in read_tape(tab)), within=60)
        for connection in connections:
            connection.settimeout(60)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")
    tab.click("#tape tbody a")
    assert shows(tab, "svg .work-no-worker")
    assert shows(tab, "svg .work-busy")
    assert shows(tab, "main tbody .state.dead")
    tab.click("nav a[href$='/events']")
    assert shows(tab, "main tbody .state.dead")


def read_tape(tab: Tab) -> list[str]:
    """The letters of each account, of a page that is loaded anew."""
    tab.go(tab.evaluate("location.href"))
    return list(
        tab.evaluate("[...document.querySelectorAll('#tape tr[data-letters]')].map(row => row.dataset.letters)")
    )
