"""A newcomer with the console alone: from a farm that has just been started to an outage, and its end."""

import threading
from collections.abc import Iterator

import pytest
import requests

from tests.browser.chromium import Chromium, Tab
from tests.browser.conftest import open_console
from tests.browser.console_pages import enter, press, read_text, read_texts, shows
from tests.integration.workers.alerts.receiver import Receiver
from tests.system.farm import Farm, chat_body
from tests.upstream import first_refresh_tokens
from tests.waiting import eventually

TOKENS = 10
#: Requests at once, enough of them for their failures to open the breaker.
CALLERS = 12


@pytest.fixture
def tab(browser: Chromium, empty_farm: Farm) -> Iterator[Tab]:
    with open_console(browser, empty_farm, "en", "light") as tab:
        yield tab


def test_newcomer_needs_nothing_but_the_console(tab: Tab, browser: Chromium, empty_farm: Farm, receiver: Receiver):
    import_tokens(tab)
    try_accounts(tab)
    base_url, secret = make_key(tab)
    assert ask(base_url, secret).status_code == 200
    stream(tab)

    empty_farm.upstream.faults(server_error=1)
    callers = [threading.Thread(target=ask, args=(base_url, secret)) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    press(tab, "#ask button[type=submit]")
    see_what_is_wrong(tab, browser, empty_farm)

    empty_farm.upstream.faults()
    eventually(lambda: read_text(tab, "[data-show=state]") == "Complete")
    for caller in callers:
        caller.join()
    tab.go(f"{empty_farm.url}/admin/")
    eventually(lambda: not shows(tab, ".alerts"))
    for words in ("the upstream is down (upstream_error)", "the upstream was down"):
        eventually(lambda words=words: any(words in title for title in receiver.titles))


def import_tokens(tab: Tab) -> None:
    """By way of the first step that the overview names."""
    assert not shows(tab, "ol.steps li:first-child.ok")
    tab.click("ol.steps a[href$='/accounts/import']")
    enter(tab, "#f-text", "\n".join(first_refresh_tokens(TOKENS)))
    press(tab, "button[value=preview]")
    eventually(lambda: f"new {TOKENS} known" in read_text(tab, "#report"))
    press(tab, "button[value=import]")
    eventually(lambda: shows(tab, "#report p a"))
    tab.click("#report p a")
    assert len(read_texts(tab, "main tbody tr")) == TOKENS


def try_accounts(tab: Tab) -> None:
    press(tab, "[data-select-all]")
    tab.click("button[value=test]")
    eventually(lambda: shows(tab, "h1 .state.done"))
    assert read_texts(tab, "#bulk tbody tr") == [f"went well {TOKENS} Show them"]
    tab.click(".brand")
    eventually(lambda: f"{TOKENS} / {TOKENS}" in read_text(tab, "#live .figure"))


def make_key(tab: Tab) -> tuple[str, str]:
    """Returns the base URL and the key, as the page shows them this once."""
    tab.click("ol.steps a[href$='/keys/new']")
    enter(tab, "#f-name", "laptop")
    tab.click("main form button[type=submit]")
    secret, base_url = read_texts(tab, ".card .snippet pre")
    tab.click("main a.button")
    return base_url, secret


def ask(base_url: str, secret: str) -> requests.Response:
    headers = {"authorization": f"Bearer {secret}"}
    return requests.post(f"{base_url}/chat/completions", json=chat_body(), headers=headers, timeout=120)


def stream(tab: Tab) -> None:
    """In the playground, which knows the upstream's models."""
    tab.click("nav a[href$='/playground']")
    enter(tab, "#f-user", "Hello, farm!")
    press(tab, "#ask button[type=submit]")
    eventually(lambda: read_text(tab, "[data-show=state]") == "Complete")
    assert read_text(tab, "[data-show=text]") == "Uryyb, snez!"
    assert "data: [DONE]" in str(tab.evaluate("document.querySelector('[data-show=raw]').textContent"))


def see_what_is_wrong(tab: Tab, browser: Chromium, farm: Farm) -> None:
    """In the playground, and in a second window from the overview on: what, since when, why, and what happens next."""
    eventually(lambda: read_text(tab, "[data-show=state]") == "The upstream is down: waits until it is back")
    other = browser.open_tab(f"{farm.url}/admin/", in_window=True)
    eventually(lambda: "the upstream is down (upstream_error): requests wait" in read_text(other, ".alerts"))
    assert "nothing is served now" in read_text(other, "#live")
    other.click(".alerts a")
    other.click("a[href*='/admin/events/']")
    assert "not yet" in read_text(other, "main dl")
    assert "upstream_error" in read_text(other, "main table tbody")
    other.click("nav a[href$='/queue']")
    assert shows(other, "#live .pool-heading .state.dead")
    other.click("nav a[href$='/accounts']")
    assert set(read_texts(other, "td.why")) == {"it can serve, but the upstream fails for the whole pool"}
    other.click("main tbody th a")
    assert "when one is served, all take requests again" in read_text(other, "main dl")
    other.click("nav a[href$='/system']")
    eventually(lambda: other.go(f"{farm.url}/admin/system") or shows(other, "#alerts .alerts"))
    other.close()
