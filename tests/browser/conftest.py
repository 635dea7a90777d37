"""A farm with its own HTTPS endpoint, a page of another origin, a browser for each version of HTTP; and a console."""

import base64
import contextlib
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from redis import Redis

from tests.browser.chromium import Chromium, Tab, run_chromium
from tests.browser.console_pages import Console, enter_token
from tests.browser.console_server import serve_console
from tests.browser.page import Page
from tests.console_content import fill_farm
from tests.environment import free_port
from tests.integration.workers.alerts.receiver import Receiver, run_receiver
from tests.system.farm import Farm, reset_farm, run_farm, start_new_farm
from tests.upstream import first_refresh_tokens, run_upstream
from tests.waiting import eventually

#: A name by which browsers take the farm for a host of the LAN: over plain HTTP it has no `navigator.clipboard`.
LAN_NAME = "farm.lan"
#: What Chromium tells of a page that did something wrong.
FAULTS = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
#: As many accounts as the page opens streams.
ACCOUNTS = 50
#: Protocol -> flags with which Chromium speaks no other.
PROTOCOL_FLAGS = {
    "http/1.1": ("--disable-http2", "--disable-quic"),
    "h2": ("--disable-quic",),
    "h3": ("--origin-to-force-quic-on=127.0.0.1:{port}",),
}
#: Of the local CA, in the data dir.
AUTHORITY = Path("caddy", "pki", "authorities", "local")


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves the files of this folder, and says nothing."""

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture(scope="session")
def https_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    port = free_port()
    settings = {"FARM_HTTPS": "internal", "FARM_HTTPS_PORT": str(port), "FARM_WORKER_PROCESSES": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for plain in run_farm(tmp_path_factory, "https", ACCOUNTS, **settings):
            farm = replace(plain, url=f"https://127.0.0.1:{port}")
            patch.setenv("REQUESTS_CA_BUNDLE", str(farm.data / AUTHORITY / "root.crt"))
            yield farm


@pytest.fixture
def farm(https_farm: Farm) -> Farm:
    return reset_farm(https_farm)


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    """A local webhook, which the new farm alerts."""
    with run_receiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def new_farm(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Farm]:
    """A farm that was started for the first time, without a token or a key; its simulator lets accounts sign in."""
    with run_upstream("--accounts", str(ACCOUNTS), "--rotate") as upstream:
        settings = {"FARM_ISSUER": upstream.base, "FARM_CLIENT_ID": "farm", "FARM_TOKEN_URL": ""}
        settings |= {"FARM_WORKER_PROCESSES": "1", "WEB_CONCURRENCY": "1", "FARM_ALERT_URLS": receiver.url}
        farm = start_new_farm(tmp_path_factory.mktemp("new"), upstream, **settings)
        yield farm
        assert farm.command("stop").returncode == 0
        assert "Traceback" not in farm.log(), farm.log()


@pytest.fixture
def empty_farm(new_farm: Farm) -> Farm:
    """The new farm without credentials."""
    for credential in new_farm.credentials():
        new_farm.admin("DELETE", f"/credentials/{credential['id']}")
    eventually(lambda: sum(new_farm.live_pool()["workers"].values()) == 0)
    new_farm.upstream.restart()
    return new_farm


@pytest.fixture
def stocked_farm(request: pytest.FixtureRequest, new_farm: Farm) -> Farm:
    """The new farm with the accounts of the other one."""
    if len(new_farm.credentials()) != ACCOUNTS:
        farm = request.getfixturevalue("empty_farm")
        farm.admin("POST", "/credentials", json={"tokens": first_refresh_tokens(ACCOUNTS)})
    return reset_farm(new_farm)


@pytest.fixture(scope="session")
def page_url() -> Iterator[str]:
    """A page of another server: another port is another origin (RFC 6454)."""
    handler = partial(QuietHandler, directory=str(Path(__file__).parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/page.html"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def open_browser(https_farm: Farm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Chromium]]:
    """Returns the browser that speaks this protocol with the farm; its events of before are dropped."""
    program = find_chromium()
    keys = [hash_key(https_farm.data / AUTHORITY / "intermediate.crt")]
    browsers: dict[str, Chromium] = {}
    with contextlib.ExitStack() as stack:

        def open_browser(protocol: str) -> Chromium:
            if protocol not in browsers:
                flags = [flag.format(port=https_farm.port) for flag in PROTOCOL_FLAGS[protocol]]
                folder = tmp_path_factory.mktemp("chromium")
                browsers[protocol] = stack.enter_context(run_chromium(program, folder, keys, *flags))
            browsers[protocol].drop_events()
            return browsers[protocol]

        yield open_browser


@pytest.fixture
def open_page(https_farm: Farm, page_url: str, open_browser: Callable[[str], Chromium]) -> Callable[[str], Page]:
    """Opens the page in a browser that speaks this protocol with the farm."""
    return lambda protocol: Page(open_browser(protocol).open_tab(page_url), https_farm)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    name = f"--host-resolver-rules=MAP {LAN_NAME} 127.0.0.1"
    with run_chromium(find_chromium(), tmp_path_factory.mktemp("chromium"), (), name) as browser:
        yield browser


@pytest.fixture
def console(redis: Redis, redis_url: str, browser: Chromium) -> Iterator[Console]:
    """A console with content, logged in; after the test it has caused no error and asked nobody else."""
    fill_farm(redis, requests=60)
    browser.drop_events()
    with serve_console(redis, redis_url) as server:
        console = Console(browser.open_tab(f"{server.url}/admin/login"), server)
        for domain in ("Page", "Log", "Runtime"):
            console.tab.call(f"{domain}.enable")
        console.log_in()
        yield console
        console.tab.close()
        assert find_faults(browser, server.url) == []


@contextlib.contextmanager
def open_console(browser: Chromium, farm: Farm, language: str, theme: str) -> Iterator[Tab]:
    """A farm's console, logged in; afterwards the browser has found no fault with any page."""
    browser.drop_events()
    tab = browser.open_tab(f"{farm.url}/admin/login?lang={language}")
    for domain in ("Log", "Runtime"):
        tab.call(f"{domain}.enable")
    enter_token(tab, farm.admin_token)
    tab.go(f"{farm.url}/admin/?lang={language}&theme={theme}")
    yield tab
    shown = tab.evaluate("[document.documentElement.lang.slice(0, 2), document.documentElement.dataset.theme]")
    assert shown == [language, theme]
    tab.call("Network.clearBrowserCookies")
    tab.close()
    assert find_faults(browser, farm.url) == []


def find_faults(browser: Chromium, url: str) -> list[Any]:
    """Errors and violations that the browser has told, refused requests, and requests to another origin."""
    faults: list[Any] = []
    for method, event in browser.events:
        if method in FAULTS and event.get("entry", {}).get("level") != "verbose":
            faults.append(event)
        elif method == "Network.responseReceived" and event["response"]["status"] >= 400:
            faults.append((event["response"]["status"], event["response"]["url"]))
        elif method == "Network.requestWillBeSent" and not event["request"]["url"].startswith((url, "data:", "about:")):
            faults.append(event["request"]["url"])
    return faults


def find_chromium() -> str:
    """The browser's program; skips the test where there is none, except in CI."""
    if program := shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome"):
        return program
    if os.environ.get("CI"):
        pytest.fail("chromium is not installed")
    pytest.skip("chromium is not installed")


def hash_key(certificate: Path) -> str:
    """The certificate's public key as Chromium compares it: SHA-256 of the SubjectPublicKeyInfo, in base64."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    return base64.b64encode(digest).decode()
