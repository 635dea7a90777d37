"""The console in a browser: no error, no violation of its policy, no foreign request, nothing off the screen.

axe (Deque's checker of accessibility) finds nothing; it comes from npm, and runs beside the page's own policy.
"""

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import replace

import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from shared.api_keys.store import ApiKeys
from shared.batches.batch_store import Batches
from shared.credentials.store import Credentials
from tests.browser.chromium import Chromium
from tests.browser.conftest import LAN_NAME
from tests.browser.console_pages import PAGES, Console, enter, press, read_texts
from tests.browser.console_server import serve_console
from tests.console_content import HOSTILE, add_operation
from tests.waiting import eventually

WIDTHS = (360, 768, 1440)
#: Package on npm, and its hash.
AXE_PACKAGE = "axe-core@4.14.1"
AXE_SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
#: First lines of the report on a text with junk in its middle.
REPORTED = (
    "501 blank",
    "502 blank",
    "503 known already",
    "504 known already",
    "505 not valid it has white space in it",
    "506 not valid there is no refresh token in it",
    "1 new",
    "2 new",
)
AXE_SCRIPT = """
axe.run(document, {resultTypes: ["violations"]}).then(({violations}) => violations.map(
  violation => `${violation.id}: ${violation.nodes.slice(0, 2).map(node => node.html.slice(0, 160)).join(" ")}`))
"""


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe; '' where npm or its registry is missing, except in CI."""
    folder = tmp_path_factory.mktemp("axe")
    command = ["npm", "pack", "--json", "--pack-destination", str(folder), AXE_PACKAGE]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120) if shutil.which("npm") else None
    if result is None or result.returncode:
        assert not os.environ.get("CI"), result and result.stderr
        return ""
    tarball = (folder / json.loads(result.stdout)[0]["filename"]).read_bytes()
    assert base64.b64encode(hashlib.sha512(tarball).digest()).decode() == AXE_SHA512
    with tarfile.open(fileobj=io.BytesIO(tarball)) as archive:
        source = archive.extractfile("package/axe.min.js")
        assert source is not None
        return source.read().decode()


def find_violations(console: Console, axe: str) -> list[str]:
    if axe:
        console.tab.evaluate(axe + ";true")
        return list(console.tab.evaluate(AXE_SCRIPT))
    return []


def read_text(console: Console, selector: str) -> str:
    return str(console.tab.evaluate(f"document.querySelector('{selector}').innerText"))


@pytest.mark.parametrize(("language", "theme"), [("en", "light"), ("zh", "dark")])
def test_every_page_fits_every_screen_and_every_reader(
    console: Console, redis: Redis, axe: str, language: str, theme: str
):
    ids = [record.id for record in Credentials(redis).list(["default"])]
    of_one = {
        "account": f"/admin/accounts/{ids[0]}",
        "account with all": f"/admin/accounts/{ids[3]}",
        "bulk": f"/admin/bulk/{add_operation(redis, ids)}",
        "request": "/admin/requests/req_17",
        "key": f"/admin/keys/{ApiKeys(redis).list()[0].id}",
        "batch": f"/admin/batches/{Batches(redis).list_active()[1]}",
    }
    overflow, violations = {}, {}
    for name, path in (PAGES | of_one).items():
        console.open(path, lang=language, theme=theme)
        for width in WIDTHS:
            console.set_width(width)
            if found := console.find_overflow() + console.find_broken_words():
                overflow[name, width] = found
        violations[name] = find_violations(console, axe)
        assert console.tab.evaluate("getComputedStyle(document.documentElement).colorScheme") == theme
    assert overflow == {}
    assert {name: found for name, found in violations.items() if found} == {}


def test_accounts_are_selected_removed_and_reported(console: Console, redis: Redis):
    console.open("/admin/accounts?state=dead", lang="en")
    console.tab.evaluate("document.querySelector('[data-select-all]').click()")
    assert console.tab.evaluate("document.querySelectorAll('tbody input:checked').length") == 2
    console.tab.click("button[value=remove]")
    console.tab.evaluate("document.querySelector('[name=sure]').click()")
    console.tab.click("main button.danger")
    assert "2 accounts were removed." in read_text(console, "[role=status]")
    assert "dead" not in Credentials(redis).get_states("default").values()


@pytest.mark.parametrize("page", ["/admin/rq/0/view/job/hostile", "/admin/rq/0/view/jobs/theirs/queued/8/asc/1"])
def test_rq_dashboard_shows_the_text_of_jobs_as_text(console: Console, redis: Redis, page: str):
    queue = Queue("theirs", connection=redis, serializer=JSONSerializer)
    queue.enqueue("os.getcwd", job_id="hostile", description=HOSTILE, meta={"note": HOSTILE})
    console.open(page)
    eventually(lambda: HOSTILE in console.tab.evaluate("document.body.innerText"))
    assert not console.tab.is_true("!!document.querySelector('img[src=x]')")


def test_import_of_a_thousand_tokens_tells_what_becomes_of_each_line_before_and_after(console: Console, redis: Redis):
    fresh = [f"fresh-token-abcdefgh-{number}" for number in range(1000)]
    junk = ["", "# a comment", "refresh-token-1", fresh[7], "two words, and no token", '{"password": "x"}']
    console.open("/admin/accounts/import", lang="en")
    enter(console.tab, "#f-text", "\n".join([*fresh[:500], *junk, *fresh[500:]]))
    for action, heading, count in (("preview", "Preview", 24), ("import", "Imported", 1024)):
        press(console.tab, f"button[value={action}]")
        eventually(lambda heading=heading: heading in read_text(console, "#report"))
        assert read_texts(console.tab, "#report .tally") == ["new 1000 known already 2 blank 2 not valid 2"]
        assert "806 more lines are not shown." in read_text(console, "#report")
        # The lines that are not new come first.
        rows = read_texts(console.tab, "#report tbody tr")
        assert all(row.startswith(words) for row, words in zip(rows, REPORTED, strict=False))
        assert "fresh-token" in console.tab.evaluate("document.querySelector('#f-text').value")
        assert len(Credentials(redis).get_states("default")) == count


def test_new_key_is_copied_over_plain_http_in_a_lan(redis: Redis, redis_url: str, browser: Chromium):
    with serve_console(redis, redis_url) as server:
        lan = replace(server, url=server.url.replace("127.0.0.1", LAN_NAME))
        console = Console(browser.open_tab(f"{lan.url}/admin/login"), lan)
        console.log_in()
        console.open("/admin/keys/new", lang="en")
        console.tab.click("main form button")
        assert console.tab.evaluate("[isSecureContext, navigator.clipboard === undefined].join()") == "false,true"
        secret = read_text(console, ".snippet pre")
        copy = "document.querySelector('button[data-copy]').click()"
        console.tab.call("Page.bringToFront")
        console.tab.call("Runtime.evaluate", expression=copy, userGesture=True)
        eventually(lambda: read_text(console, "button[data-copy]") == "Copied")
        console.tab.close()
        reader = browser.open_tab(f"{server.url}/admin/login")
        browser.call("Browser.grantPermissions", origin=server.url, permissions=["clipboardReadWrite"])
        reader.call("Page.bringToFront")
        reader.call("Emulation.setFocusEmulationEnabled", enabled=True)
        assert reader.evaluate("navigator.clipboard.readText()") == secret
        assert secret.startswith("sk-")
        reader.close()
