"""The Caddyfile of the HTTPS endpoint, as Caddy itself reads it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from launcher.processes.https.caddyfile import Sockets, build_caddyfile
from launcher.processes.https.program import find_program
from shared.settings.schema import Settings
from tests.environment import ROOT

SOCKETS = Sockets(Path("/a folder/web.sock"), Path("/a folder/caddy.sock"))
NAMES = ["farm.lan", "127.0.0.1", "::1"]


def adapt(file: Path, **environment: str) -> dict[str, Any]:
    """The configuration that Caddy makes of a Caddyfile without a complaint."""
    program = find_program()
    assert program
    command = [program, "adapt", "--config", file, "--adapter", "caddyfile", "--validate"]
    result = subprocess.run(command, capture_output=True, text=True, env={"HOME": str(file.parent), **environment})
    assert result.returncode == 0, result.stderr
    assert "not formatted" not in result.stderr
    return dict(json.loads(result.stdout))


@pytest.fixture
def build(tmp_path: Path) -> Any:
    def build(**settings: Any) -> dict[str, Any]:
        file = tmp_path / "Caddyfile"
        file.write_text(build_caddyfile(Settings(**settings), SOCKETS, NAMES))
        return adapt(file, XDG_DATA_HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path))

    return build


def find_all(value: Any, key: str) -> list[Any]:
    """All values of that key, however deep."""
    if isinstance(value, list):
        return [found for item in value for found in find_all(item, key)]
    if isinstance(value, dict):
        return [*([value[key]] if key in value else []), *(f for item in value.values() for f in find_all(item, key))]
    return []


def test_local_ca_serves_any_name_where_host_says(build: Any):
    config = build(https="internal", https_port=9443)
    (server,) = config["apps"]["http"]["servers"].values()
    assert server["listen"] == ["127.0.0.1:9443"]
    assert find_all(server["routes"], "host") == []
    assert sorted(config["apps"]["tls"]["certificates"]["automate"]) == sorted(NAMES)
    assert find_all(config, "module") == ["internal"]
    assert find_all(config, "install_trust") == [False]
    assert find_all(config, "disable_redirects") == [True]
    assert "Strict-Transport-Security" not in str(config)
    assert config["admin"]["listen"] == f"unix/{SOCKETS.admin}|0600"


def test_public_names_are_served_on_all_addresses_with_redirects_and_hsts(build: Any):
    config = build(https="auto", domain=("a.example.org", "b.example.org"))
    (server,) = config["apps"]["http"]["servers"].values()
    assert server["listen"] == [":443"]
    assert find_all(server["routes"], "host") == [["a.example.org", "b.example.org"]]
    assert find_all(config, "disable_redirects") == []
    assert find_all(server, "Strict-Transport-Security") == [["max-age=31536000"]]
    chosen = build(https="auto", domain=("a.example.org",), host="192.0.2.7", https_port=8443)
    (server,) = chosen["apps"]["http"]["servers"].values()
    assert server["listen"] == ["192.0.2.7:8443"]
    assert find_all(chosen, "disable_redirects") == [True]


def test_streams_are_neither_compressed_nor_kept_when_their_caller_has_left(build: Any):
    config = build(https="internal")
    (proxy,) = [handler for handler in find_all(config, "handle") for handler in handler if "upstreams" in handler]
    assert proxy["upstreams"] == [{"dial": f"unix/{SOCKETS.front}"}]
    assert proxy["transport"]["compression"] is False
    assert proxy["transport"]["keep_alive"] == {"enabled": False}
    assert {"flush_interval", "request_buffers", "response_buffers", "stream_timeout"} & set(proxy) == set()
    (server,) = config["apps"]["http"]["servers"].values()
    assert {"read_timeout", "write_timeout"} & set(server) == set()
    assert find_all(config, "max_size") == find_all(config, "encodings") == []


def test_only_trusted_proxies_may_name_callers(build: Any):
    assert find_all(build(https="internal"), "trusted_proxies") == []
    config = build(https="internal", trusted_proxies=("192.0.2.0/24", "2001:db8::/32"))
    assert find_all(config, "ranges") == [["192.0.2.0/24", "2001:db8::/32"]]
    assert find_all(config, "trusted_proxies_strict") == [1]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_log_has_neither_headers_nor_queries(build: Any, log_format: str):
    (log,) = build(https="internal", log_format=log_format)["logging"]["logs"].values()
    assert log["encoder"]["fields"] == {"request>uri": {"filter": "delete"}, "request>headers": {"filter": "delete"}}
    assert "http.handlers.reverse_proxy" in log["exclude"]


def test_caddyfile_for_containers_does_the_same(tmp_path: Path, build: Any):
    folders = {"XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    config = adapt(ROOT / "deploy" / "Caddyfile", FARM_DOMAIN="a.example.org, b.example.org", **folders)
    (server,) = config["apps"]["http"]["servers"].values()
    assert find_all(server["routes"], "host") == [["a.example.org", "b.example.org"]]
    assert find_all(server, "dial") == ["web:8000"]
    (own,) = build(https="auto", domain=("a.example.org", "b.example.org"))["apps"]["http"]["servers"].values()
    assert find_all(server, "transport") == find_all(own, "transport")
    assert {name: server[name] for name in server if name != "routes"} == {
        name: own[name] for name in own if name != "routes"
    }
