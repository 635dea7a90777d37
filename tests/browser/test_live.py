"""Live pages in a browser: they change without a reload, ask for nothing while hidden, and don't grow."""

import pytest
from redis import Redis

from shared import keys
from shared.api_keys.admin_sessions import AdminSessions
from shared.batches.batch_store import Batches
from shared.credentials.store import Credentials
from tests.browser.chromium import Chromium
from tests.browser.console_pages import Console, press, read_text, shows
from tests.console_batches import add_batch
from tests.waiting import eventually
from web import live_feed

ACCOUNTS = "document.querySelector('#live .figure b').innerText"
#: Nodes and bytes by which a page may differ between two moments without growing.
SPARE_NODES, SPARE_BYTES = 200, 1_000_000
TAPE_PICTURE = "document.querySelector('#tape canvas').toDataURL()"
SET_HIDDEN = """
Object.defineProperty(document, "hidden", {configurable: true, get: () => %s});
document.dispatchEvent(new Event("visibilitychange"));
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_feed, "TICK_SECONDS", 0.1)
    monkeypatch.setattr(live_feed, "MAX_CPU_SHARE", 100.0)


def add_account(redis: Redis, number: int) -> None:
    Credentials(redis).add("default", f"another-token-{number}", "", "https://tokens.example")


def shows_accounts(console: Console, accounts: int) -> bool:
    return bool(console.tab.is_true(f"{ACCOUNTS}.includes('/ {accounts}')"))


def list_requests(browser: Chromium) -> list[str]:
    return [event["request"]["url"] for name, event in browser.events if name == "Network.requestWillBeSent"]


def measure(console: Console, ticks: int) -> dict[str, float]:
    """Nodes and heap of the page after so many updates."""
    console.tab.evaluate(
        f"""new Promise(resolve => {{ let left = {ticks}; document.addEventListener("htmx:sse:after:message",
            () => {{ if (!--left) resolve(); }}) }})"""
    )
    console.tab.call("HeapProfiler.collectGarbage")
    return {each["name"]: each["value"] for each in console.tab.call("Performance.getMetrics")["metrics"]}


def test_figure_changes_without_a_reload_and_not_while_hidden(console: Console, redis: Redis, browser: Chromium):
    console.open("/admin/", lang="en")
    assert shows_accounts(console, 24)
    console.tab.evaluate("document.isSamePage = true")
    add_account(redis, 1)
    eventually(lambda: shows_accounts(console, 25))
    eventually(lambda: console.tab.is_true("document.querySelector('#live-state').innerText == 'live'"))

    console.tab.evaluate(SET_HIDDEN % "true")
    eventually(lambda: len(console.server.feed) == 0)
    asked = len(list_requests(browser))
    add_account(redis, 2)
    console.tab.evaluate("new Promise(resolve => setTimeout(resolve, 2000))")
    assert (len(list_requests(browser)), len(console.server.feed)) == (asked, 0)
    assert shows_accounts(console, 25)

    console.tab.evaluate(SET_HIDDEN % "false")
    eventually(lambda: shows_accounts(console, 26))
    assert console.tab.is_true("document.isSamePage")


def test_tab_that_was_opened_in_the_background_connects_when_it_is_shown(console: Console, redis: Redis):
    script = console.tab.call("Page.addScriptToEvaluateOnNewDocument", source=SET_HIDDEN % "true")
    console.open("/admin/queue")
    console.tab.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script["identifier"])
    # The page before has gone, and this one does not connect.
    eventually(lambda: len(console.server.feed) == 0)
    console.tab.evaluate("new Promise(resolve => setTimeout(resolve, 1000))")
    assert len(console.server.feed) == 0
    console.tab.evaluate(SET_HIDDEN % "false")
    eventually(lambda: len(console.server.feed) == 1)
    eventually(lambda: console.tab.is_true("document.querySelector('#live-state').dataset.state == 'live'"))


def test_page_leads_to_the_login_when_its_session_has_ended(console: Console, redis: Redis):
    console.open("/admin/queue")
    eventually(lambda: len(console.server.feed) == 1)
    AdminSessions(redis).end_all()
    eventually(lambda: console.tab.is_true("location.pathname == '/admin/login'"))
    assert console.tab.evaluate("location.search") == "?" + "next=/admin/queue"


def test_page_of_a_batch_moves_asks_before_it_cancels_and_settles(console: Console, redis: Redis, browser: Chromium):
    batch = add_batch(redis, "k", "in_progress")
    console.open(f"/admin/batches/{batch.id}", lang="en")
    console.tab.evaluate("document.isSamePage = true; window.confirm = question => { document.asked = question }")
    press(console.tab, ".danger")
    assert "Cancel this batch?" in console.tab.evaluate("document.asked")
    redis.hincrby(keys.batch(batch.id), "completed", 1)
    eventually(lambda: "26 of 40 completed" in read_text(console.tab, "#live .facts"))
    assert shows(console.tab, ".live-controls") and shows(console.tab, ".danger")
    changes = {"status": "completed", "output_parts": [7]}
    Batches(redis).change(batch, ("in_progress",), changes, ends=True)
    eventually(lambda: batch.output_file in read_text(console.tab, "#live .facts"))
    eventually(lambda: not shows(console.tab, ".live-controls") and len(console.server.feed) == 0)
    assert not shows(console.tab, ".danger") and Batches(redis).get(batch.id).status == "completed"
    # Not even when its tab is shown again.
    asked = len(list_requests(browser))
    console.tab.evaluate(SET_HIDDEN % "false")
    console.tab.evaluate("new Promise(resolve => setTimeout(resolve, 1500))")
    assert len(list_requests(browser)) == asked and console.tab.is_true("document.isSamePage")


def read_letters(console: Console, number: int) -> str:
    """What the tape's table says of an account at its newest second, in its column `Now`."""
    return str(console.tab.evaluate(f"document.querySelectorAll('#tape tbody tr')[{number}].cells[2].innerText"))


def test_tape_goes_on_and_shows_accounts_that_have_lost_their_worker_process(console: Console, redis: Redis):
    console.open("/admin/queue", lang="en")
    console.tab.evaluate("document.querySelector('#tape details').open = true")
    ids = sorted(Credentials(redis).get_states("default"))
    drawn = console.tab.evaluate(TAPE_PICTURE)
    for _ in range(5):
        write_column(redis, ids, "b")
    eventually(lambda: write_column(redis, ids, "b") and read_letters(console, 3) == "busy")
    # The first picture may have been taken when the account was busy already.
    eventually(lambda: write_column(redis, ids, "b") and console.tab.evaluate(TAPE_PICTURE) != drawn)
    # Its process is killed: no column comes any more.
    eventually(lambda: read_letters(console, 3) == "no worker")
    # Another account than those of the page.
    add_account(redis, 1)
    eventually(lambda: console.tab.evaluate("document.querySelectorAll('#tape tbody tr').length") == 25)


def write_column(redis: Redis, ids: list[str], letter: str) -> bool:
    redis.xadd(keys.tape("p1"), {"c": letter * len(ids), "k": " ".join(ids)})
    return True


@pytest.mark.parametrize("page", ["/admin/", "/admin/queue"])
def test_page_does_not_grow(console: Console, page: str):
    console.open(page)
    console.tab.call("Performance.enable")
    before, after = measure(console, 10), measure(console, 30)
    assert after["Nodes"] - before["Nodes"] < SPARE_NODES
    assert after["JSEventListeners"] <= before["JSEventListeners"] + 2
    assert after["JSHeapUsedSize"] - before["JSHeapUsedSize"] < SPARE_BYTES
