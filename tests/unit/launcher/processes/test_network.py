"""What the launcher asks of its own front never goes through a proxy."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from launcher.processes.network import is_up
from tests.environment import free_port


class Ready(BaseHTTPRequestHandler):
    """A front that is ready."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


def test_front_is_asked_directly_whatever_proxy_the_environment_names(monkeypatch: pytest.MonkeyPatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = HTTPServer(("127.0.0.1", 0), Ready)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert is_up(f"http://127.0.0.1:{server.server_port}/readyz")
    finally:
        server.shutdown()
        server.server_close()
