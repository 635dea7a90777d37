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

from tests.browser.chromium import Chromium, run_chromium
from tests.browser.console_pages import Console
from tests.browser.console_server import serve_console
from tests.browser.page import Page
from tests.console_content import fill_farm
from tests.environment import free_port
from tests.system.farm import Farm, reset_farm, run_farm

#: A name by which browsers take the farm for a host of the LAN: over plain HTTP it has no `navigator.clipboard`.
LAN_NAME = "farm.lan"
#: What Chromium tells of a page that did something wrong.
FAULTS = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
#: As many accounts as the page opens streams.
ACCOUNTS = 50
#: Accounts of the simulator besides, which may sign in.
SPARE_ACCOUNTS = 6
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
    settings["FARM_TOKEN_URL"] = ""  # The issuer names it.
    with pytest.MonkeyPatch.context() as patch:
        for plain in run_farm(tmp_path_factory, "https", ACCOUNTS, SPARE_ACCOUNTS, signs_in=True, **settings):
            farm = replace(plain, url=f"https://127.0.0.1:{port}")
            patch.setenv("REQUESTS_CA_BUNDLE", str(farm.data / AUTHORITY / "root.crt"))
            yield farm


@pytest.fixture
def farm(https_farm: Farm) -> Farm:
    return reset_farm(https_farm)


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


@pytest.fixture
def open_browser(https_farm: Farm, tmp_path: Path) -> Iterator[Callable[[str], Chromium]]:
    """Starts a browser that speaks this protocol with the farm."""
    program = find_chromium()
    keys = [hash_key(https_farm.data / AUTHORITY / "intermediate.crt")]
    with contextlib.ExitStack() as stack:

        def open_browser(protocol: str) -> Chromium:
            flags = [flag.format(port=https_farm.port) for flag in PROTOCOL_FLAGS[protocol]]
            return stack.enter_context(run_chromium(program, tmp_path, keys, *flags))

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
    browser.events.clear()
    with serve_console(redis, redis_url) as server:
        console = Console(browser.open_tab(f"{server.url}/admin/login"), server)
        for domain in ("Page", "Log", "Runtime"):
            console.tab.call(f"{domain}.enable")
        console.log_in()
        yield console
        console.tab.close()
        assert find_faults(browser) == []
        asked = [
            parameters["request"]["url"]
            for method, parameters in browser.events
            if method == "Network.requestWillBeSent"
        ]
        assert len(asked) > 3
        assert [url for url in asked if not url.startswith((server.url, "data:", "about:"))] == []


def find_faults(browser: Chromium) -> list[dict[str, Any]]:
    """What the browser has found wrong with its pages."""
    faults = (parameters for method, parameters in browser.events if method in FAULTS)
    return [fault for fault in faults if fault.get("entry", {}).get("level") != "verbose"]


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
