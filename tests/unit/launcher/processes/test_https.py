"""What the HTTPS endpoint needs: the locked Caddy, its ports, its names, and nothing of the farm's secrets."""

import errno
import importlib.util
import shutil
import socket
import sys
import tomllib
from pathlib import Path

import pytest

from launcher.processes import locked_extra
from launcher.processes.https import advice, program
from launcher.processes.https.ports import check_ports, describe_obstacle, find_ports
from launcher.processes.https.proxy import ReverseProxy, build_environment, find_local_names
from shared.errors import FarmError
from shared.settings.schema import Settings
from tests.environment import ROOT


def test_caddy_is_locked_by_hash_as_an_extra_of_its_own():
    locked = program.LOCK_FILE.read_text()
    assert locked.startswith(f"{program.PACKAGE}=={program.read_locked_version()} \\\n")
    assert locked.count("--hash=sha256:") >= 4
    assert locked in (ROOT / "requirements-dev.lock").read_text()
    assert program.PACKAGE not in (ROOT / "requirements.lock").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [requirement.partition(">")[0] for requirement in extras["https"]] == [program.PACKAGE]


def test_caddy_of_another_version_is_replaced(monkeypatch: pytest.MonkeyPatch):
    commands = []
    monkeypatch.setattr(locked_extra, "run_command", commands.append)
    monkeypatch.setattr(program, "read_locked_version", lambda: "2.0.0")
    with pytest.raises(FarmError, match="no Caddy for this machine"):
        program.ensure_program(lambda _: None)
    assert len(commands) == 1


@pytest.mark.parametrize(("uv", "has_pip"), [("/bin/uv", False), (None, True), (None, False)])
def test_install_is_by_hash_with_whatever_has_built_the_environment(
    monkeypatch: pytest.MonkeyPatch, uv: str | None, has_pip: bool
):
    monkeypatch.setattr(shutil, "which", lambda _: uv)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object() if has_pip else None)
    command = locked_extra.build_install_command(program.LOCK_FILE)
    assert command[-4:] == ["--no-deps", "--require-hashes", "-r", str(program.LOCK_FILE)]
    assert sys.executable in command
    assert command[0] == (uv or (sys.executable if has_pip else command[0]))
    assert (command[0] == sys.executable) == (has_pip and not uv)


def test_missing_permission_and_busy_ports_are_explained():
    refused = describe_obstacle("", 443, PermissionError(errno.EACCES, "Permission denied"))
    assert "port 443" in refused
    assert "CAP_NET_BIND_SERVICE" in refused
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        with pytest.raises(FarmError, match=rf"port {port}.*in use.*FARM_HTTPS_PORT"):
            check_ports(Settings(https="internal", https_port=port))
    check_ports(Settings(https="internal", https_port=port))


def test_port_80_is_needed_only_beside_443():
    assert find_ports(Settings(https="auto", domain=("a.example.org",))) == [80, 443]
    assert find_ports(Settings(https="auto", domain=("a.example.org",), https_port=8443)) == [8443]
    assert find_ports(Settings(https="internal")) == [8443]


def test_url_is_by_the_first_name(tmp_path: Path):
    def url(**settings: object) -> str:
        return ReverseProxy(Settings(**settings), tmp_path, {}).url  # type: ignore[arg-type]

    assert url(https="auto", domain=("a.example.org", "b.example.org")) == "https://a.example.org"
    assert url(https="auto", domain=("a.example.org",), https_port=8443) == "https://a.example.org:8443"
    assert url(https="internal") == "https://localhost:8443"
    assert url(https="internal", host="2001:db8::1") == "https://[2001:db8::1]:8443"
    assert url(https="internal", host="0.0.0.0", domain=("farm.lan",)) == "https://farm.lan:8443"


def test_local_certificates_are_for_every_name_that_reaches_the_farm():
    assert {"localhost", "127.0.0.1", "::1"} <= set(find_local_names(Settings(https="internal")))
    names = find_local_names(Settings(https="internal", host="0.0.0.0", domain=("farm.lan",)))
    assert names[:2] == ["farm.lan", "localhost"]
    assert len(names) == len(set(names))
    assert not any(name.startswith("fe80") for name in names)


def test_caddy_gets_no_secret_of_the_farm(tmp_path: Path):
    given = {"FARM_ADMIN_TOKEN": "a", "FARM_SECRET_KEY": "b", "REDIS_URL": "c", "HTTPS_PROXY": "d", "PATH": "e"}
    environment = build_environment(given | {"AWS_SECRET_ACCESS_KEY": "f"}, tmp_path)
    assert set(environment) == {"HTTPS_PROXY", "PATH", "XDG_DATA_HOME", "XDG_CONFIG_HOME"}
    assert environment["XDG_DATA_HOME"] == str(tmp_path)


def test_missing_dns_and_permissions_are_named_before_the_start(monkeypatch: pytest.MonkeyPatch):
    addresses = {"here.example": "192.0.2.1", "there.example": "192.0.2.9", "loop.example": "127.0.0.1"}

    def resolve(host: str | None, *_: object, **__: object) -> list[tuple[object, ...]]:
        if host not in addresses:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (addresses[host], 0))]

    refused = PermissionError(errno.EACCES, "Permission denied")
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(advice, "find_addresses", lambda: ["192.0.2.1"])
    monkeypatch.setattr(advice, "find_obstacle", lambda _, port: refused if port == 80 else None)
    names = ("here.example", "there.example", "loop.example", "missing.example")
    warnings = advice.find_https_warnings(Settings(https="auto", domain=names))
    expected = ("port 80", "there.example is 192.0.2.9", "loop.example is a loopback", "missing.example has no address")
    assert [text in warning for text, warning in zip(expected, warnings, strict=True)] == [True] * 4
    monkeypatch.setattr(advice, "find_obstacle", lambda *_: OSError(errno.EADDRINUSE, "in use"))
    assert advice.find_https_warnings(Settings(https="internal", domain=("missing.example",))) == []
    assert advice.find_https_warnings(Settings()) == []
