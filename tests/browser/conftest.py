"""A farm with its own HTTPS endpoint, a page of another origin, and a browser for each version of HTTP."""

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

from tests.browser.chromium import Chromium, run_chromium
from tests.browser.page import Page
from tests.environment import free_port
from tests.system.farm import Farm, reset_farm, run_farm

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
