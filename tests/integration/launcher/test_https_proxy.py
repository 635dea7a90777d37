"""Caddy as the farm runs it, without a front behind it."""

import json
import socket
import ssl
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from launcher.processes.https.proxy import ReverseProxy
from launcher.processes.process_group import stop_process
from shared.errors import FarmError
from shared.settings.schema import Settings
from tests.environment import clean_environment, free_port
from tests.waiting import eventually


@pytest.fixture
def settings() -> Settings:
    return Settings(https="internal", https_port=free_port())


@pytest.fixture
def proxy(settings: Settings, tmp_path: Path) -> Iterator[ReverseProxy]:
    proxy = ReverseProxy(settings, tmp_path, clean_environment())
    proxy.prepare(print)
    process = proxy.start()
    try:
        eventually(proxy.is_serving)
        yield proxy
    finally:
        stop_process(process, 5)


def test_unreachable_front_is_an_error_in_the_farms_shape(proxy: ReverseProxy, settings: Settings):
    context = ssl.create_default_context(cafile=proxy.local_root)
    for host in ("localhost", "127.0.0.1"):
        with socket.create_connection(("127.0.0.1", settings.https_port)) as connection:
            context.wrap_socket(connection, server_hostname=host).close()
    connection = HTTPSConnection("localhost", settings.https_port, context=context, timeout=60)
    connection.request("POST", "/v1/chat/completions?key=sk-in-the-query", b"{}", {"x-api-key": "sk-in-a-header"})
    response = connection.getresponse()
    error = json.loads(response.read())["error"]
    assert (response.status, error["code"], error["type"]) == (503, "shutting_down", "server_error")
    assert response.headers["retry-after"] == "5"
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["access-control-allow-origin"] == "*"
    connection.close()


def test_settings_that_caddy_refuses_leave_the_old_ones_in_force(proxy: ReverseProxy, settings: Settings):
    with pytest.raises(FarmError, match="Caddy does not take them"):
        proxy.reload(Settings(https="internal", https_port=settings.https_port, trusted_proxies=("no network",)))
    assert proxy.is_serving()
    proxy.reload(Settings(https="internal", https_port=settings.https_port, domain=("farm.lan",)))
    assert proxy.url == f"https://farm.lan:{settings.https_port}"
    eventually(proxy.is_serving)
