"""The configurations of docs/deployment.md do what the farm needs of a reverse proxy, in front of a plain server."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from shared.settings.schema import Settings
from simulator.certificate import create_tls_context
from tests.environment import ROOT, free_port
from tests.waiting import eventually

PAGE = (ROOT / "docs" / "deployment.md").read_text()
NGINX = """
daemon off;
user root;
pid {folder}/nginx.pid;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {recipe}
}}
"""
HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
{recipe}
"""
CADDY = """
{{
    admin off
    auto_https disable_redirects
}}
{recipe}
"""
#: Name of the code block -> what stands around it, and the command.
PROXIES = {
    "nginx": (NGINX, ["nginx", "-p", "{folder}", "-c", "{config}", "-e", "stderr"]),
    "haproxy": (HAPROXY, ["haproxy", "-db", "-f", "{config}"]),
    "caddyfile": (
        CADDY,
        [str(Path(sys.executable).with_name("caddy")), "run", "--adapter", "caddyfile", "--config", "{config}"],
    ),
}


@dataclass
class Backend:
    """What stands for the farm: it answers as a front does."""

    port: int = 0
    #: Headers and length of the body of each request.
    received: list[tuple[Message, int]] = field(default_factory=list)
    #: Set once a caller of `/stream` has left.
    left: threading.Event = field(default_factory=threading.Event)


@contextmanager
def run_backend() -> Iterator[Backend]:
    backend = Backend()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            backend.received.append((self.headers, len(body)))
            self.send_response(200)
            if self.path == "/stream":
                self.send_stream()
            else:
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def send_stream(self) -> None:
            """Sends one piece, then nothing until the caller leaves."""
            self.send_header("content-type", "text/event-stream")
            self.send_header("x-accel-buffering", "no")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"d\r\ndata: first\n\n\r\n")
            self.wfile.flush()
            with contextlib.suppress(ConnectionResetError):
                self.connection.recv(1)
            self.close_connection = True
            backend.left.set()

        def log_request(self, code: object = "-", size: object = "-") -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    backend.port = server.server_port
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield backend
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def read_recipe(name: str) -> str:
    blocks = re.findall(rf"^```{name}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    return str(blocks[0])


def fill_in(recipe: str, folder: Path, port: int, backend: Backend) -> str:
    """The recipe with the addresses and certificates of this test, and nothing else changed."""
    certificate = folder / "farm.pem"
    create_tls_context(certificate)
    both = folder / "both.pem"
    both.write_text(certificate.read_text() + certificate.with_suffix(".key").read_text())
    caddy_site = f"https://localhost:{port} {{\n    tls {certificate} {certificate.with_suffix('.key')}"
    replacements = {
        "farm.example.org {": caddy_site,
        "farm.example.org": "localhost",
        "listen 443": f"listen 127.0.0.1:{port}",
        "bind :443": f"bind 127.0.0.1:{port}",
        "crt /etc/ssl/farm.pem": f"crt {both}",
        "/etc/ssl/farm": str(certificate.with_suffix("")),
        "127.0.0.1:8000": f"127.0.0.1:{backend.port}",
    }
    for old, new in replacements.items():
        recipe = recipe.replace(old, new)
    return recipe


@dataclass
class Proxy:
    """A running proxy in front of the backend."""

    port: int
    folder: Path
    backend: Backend

    def command(self, path: str, *arguments: str) -> list[str]:
        trust = ("--cacert", str(self.folder / "farm.pem"))
        return ["curl", "-sS", "--noproxy", "*", *trust, *arguments, f"https://localhost:{self.port}{path}"]

    def call(self, path: str, *arguments: str) -> str:
        """The HTTP version and the status; '' when the proxy isn't there."""
        command = self.command(path, "-o", os.devnull, "-w", "%{http_version} %{http_code}", *arguments)
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        return result.stdout if result.returncode == 0 else ""


@pytest.fixture(params=PROXIES)
def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Proxy]:
    template, command = PROXIES[request.param]
    if not shutil.which(command[0]):
        message = f"{request.param} is not installed"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    tmp_path.chmod(0o755)
    with run_backend() as backend, (tmp_path / "log").open("wb") as log:
        proxy = Proxy(free_port(), tmp_path, backend)
        config = tmp_path / "proxy.conf"
        recipe = fill_in(read_recipe(request.param), tmp_path, proxy.port, backend)
        config.write_text(template.format(folder=tmp_path, recipe=recipe))
        arguments = [part.format(folder=tmp_path, config=config) for part in command]
        environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
        process = subprocess.Popen(arguments, stdout=log, stderr=log, env=environment)
        try:
            eventually(lambda: process.poll() is not None or proxy.call("/healthz") != "")
            assert process.poll() is None, (tmp_path / "log").read_text()
            yield proxy
        finally:
            process.terminate()
            process.wait()


def test_recipe_passes_what_the_farm_needs(proxy: Proxy, tmp_path: Path):
    # The address is the proxy's word, whatever the caller says; the largest body passes; HTTP/2 is spoken.
    body = tmp_path / "request"
    body.write_bytes(b"x" * Settings.max_body)
    assert proxy.call("/echo", "--http2", "-H", "X-Forwarded-For: 192.0.2.66", "--data-binary", f"@{body}") == "2 200"
    headers, length = proxy.backend.received[-1]
    assert length == Settings.max_body
    assert ",".join(headers.get_all("x-forwarded-for", [])).split(",")[-1].strip() == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "https"
    assert headers["host"] == f"localhost:{proxy.port}"

    # A file may be larger.
    body.write_bytes(b"x" * (Settings.max_body + 2_000_000))
    assert proxy.call("/v1/files", "--http2", "--data-binary", f"@{body}") == "2 200"
    headers, length = proxy.backend.received[-1]
    assert length == Settings.max_body + 2_000_000
    assert headers["x-forwarded-proto"] == "https"

    # The first piece of a stream arrives while the rest isn't there, and a caller who leaves is told of.
    curl = subprocess.Popen(proxy.command("/stream", "--http2", "-N", "-d", "{}"), stdout=subprocess.PIPE)
    assert curl.stdout
    assert curl.stdout.readline() == b"data: first\n"
    assert not proxy.backend.left.is_set()
    curl.kill()
    curl.wait()
    curl.stdout.close()
    eventually(proxy.backend.left.is_set)


@pytest.mark.parametrize("line", ["proxy_read_timeout {}s;", "timeout server {}s"])
def test_recipe_waits_as_long_as_a_request_may_take(line: str):
    assert PAGE.count(line.format(int(Settings.total_timeout))) == 1
