"""Owners sign accounts in, in a browser: they become credentials that serve, one for each account."""

import json
from collections.abc import Callable
from typing import Any

from tests.browser.chromium import BrowserError, Chromium, Tab
from tests.browser.conftest import ACCOUNTS, SPARE_ACCOUNTS
from tests.system.farm import Farm
from tests.waiting import eventually

BY_BROWSER = range(ACCOUNTS, ACCOUNTS + SPARE_ACCOUNTS // 2)
BY_CODE = range(ACCOUNTS + SPARE_ACCOUNTS // 2, ACCOUNTS + SPARE_ACCOUNTS)


def begin(farm: Farm, flow: str) -> dict[str, Any]:
    return dict(farm.admin("POST", "/sign-ins", json={"flow": flow}).json())


def read(farm: Farm, sign_in: dict[str, Any]) -> dict[str, Any]:
    return dict(farm.admin("GET", f"/sign-ins/{sign_in['id']}").json())


def allow(tab: Tab, account: int) -> None:
    """Chooses the account and agrees, as its owner does."""
    tab.evaluate(f"document.querySelector('[name=account]').value = {json.dumps(str(account))}")
    tab.evaluate("document.querySelector('[value=allow]').click()")


def read_text(tab: Tab) -> str:
    """What the page shows; '' while the tab goes to another one."""
    try:
        return str(tab.evaluate("document.body?.innerText ?? ''"))
    except BrowserError:
        return ""


def sign_in_by_browser(farm: Farm, browser: Chromium, account: int) -> dict[str, Any]:
    """The consent page sends the browser back to the farm."""
    sign_in = begin(farm, "browser")
    tab = browser.open_tab(sign_in["url"])
    allow(tab, account)
    eventually(lambda: "@simulator.example. You may close this page" in read_text(tab))
    assert tab.evaluate("location.href").startswith(f"{farm.url}/admin/sign-in/callback?")
    tab.close()
    return read(farm, sign_in)


def sign_in_by_code(farm: Farm, browser: Chromium, account: int) -> dict[str, Any]:
    sign_in = begin(farm, "device")
    tab = browser.open_tab(sign_in["url"])
    assert tab.evaluate("document.querySelector('[name=user_code]').value") == sign_in["user_code"]
    allow(tab, account)
    eventually(lambda: "You may close this page" in read_text(tab))
    tab.close()
    return dict(eventually(lambda: ended if (ended := read(farm, sign_in))["state"] != "pending" else None))


def test_six_accounts_sign_in_and_serve_and_the_same_one_twice_is_one_worker(
    farm: Farm, open_browser: Callable[[str], Chromium]
):
    browser = open_browser("h2")
    ended = [sign_in_by_browser(farm, browser, account) for account in BY_BROWSER]
    ended += [sign_in_by_code(farm, browser, account) for account in BY_CODE]
    assert [(sign_in["state"], sign_in["outcome"]) for sign_in in ended] == [("done", "added")] * SPARE_ACCOUNTS
    again = sign_in_by_browser(farm, browser, BY_CODE[0])
    assert (again["outcome"], again["credential_id"]) == ("replaced", ended[len(BY_BROWSER)]["credential_id"])

    ids = {sign_in["credential_id"] for sign_in in ended}
    assert len(ids) == SPARE_ACCOUNTS
    eventually(lambda: farm.live_pool()["workers"]["idle"] == ACCOUNTS + SPARE_ACCOUNTS)
    for credential_id in ids:
        assert farm.admin("POST", f"/credentials/{credential_id}/test", json={}).json()["ok"]
    assert farm.upstream.counters()["collisions"] == 0
    for credential_id in ids:
        farm.admin("DELETE", f"/credentials/{credential_id}")
