"""Owners sign accounts in, in a browser: they become credentials that serve, one for each account."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.browser.chromium import BrowserError, Chromium, Tab
from tests.system.farm import Farm, chat_body
from tests.waiting import eventually

BY_BROWSER, BY_CODE = range(3), range(3, 6)
SIGNED_IN = len(BY_BROWSER) + len(BY_CODE)


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


def list_ids(farm: Farm) -> list[str]:
    return [credential["id"] for credential in farm.credentials()]


def test_six_accounts_sign_in_and_serve_and_the_same_one_twice_is_one_worker(empty_farm: Farm, browser: Chromium):
    farm = empty_farm
    ended = [sign_in_by_browser(farm, browser, account) for account in BY_BROWSER]
    ended += [sign_in_by_code(farm, browser, account) for account in BY_CODE]
    assert [(sign_in["state"], sign_in["outcome"]) for sign_in in ended] == [("done", "added")] * SIGNED_IN
    again = sign_in_by_browser(farm, browser, BY_CODE[0])
    assert (again["outcome"], again["credential_id"]) == ("replaced", ended[len(BY_BROWSER)]["credential_id"])

    ids = {sign_in["credential_id"] for sign_in in ended}
    assert len(ids) == SIGNED_IN
    assert set(list_ids(farm)) == ids
    eventually(lambda: farm.live_pool()["workers"]["idle"] == SIGNED_IN)
    key = farm.admin("POST", "/keys", json={"name": "after signing in"}).json()["key"]
    with ThreadPoolExecutor(SIGNED_IN) as callers:
        replies = callers.map(lambda number: farm.post("/v1/chat/completions", chat_body(str(number)), key), range(24))
    assert [reply.status_code for reply in replies] == [200] * 24
    for credential_id in ids:
        assert farm.admin("POST", f"/credentials/{credential_id}/test", json={}).json()["ok"]
    assert farm.upstream.counters()["collisions"] == 0
