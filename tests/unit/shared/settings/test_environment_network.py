"""Proxies and CA bundles of the environment are used as curl uses them; a mistake in them is one line at the start."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.errors import SettingsError
from shared.settings.environment_network import read_environment
from shared.settings.file_checks import check_files
from shared.settings.schema import PoolSettings, Settings
from workers.upstream.client import UpstreamRoute, create_session

URL = "https://up.example/v1"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    read_environment.cache_clear()
    yield monkeypatch
    read_environment.cache_clear()


@pytest.mark.parametrize(
    ("value", "proxy"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128"),
        ("HTTP://proxy.example:3128/", "http://proxy.example:3128"),
        ("proxy.example:3128", "http://proxy.example:3128"),
        ("socks5://user:pass@proxy.example:1080", "socks5://user:pass@proxy.example:1080"),
        ("socks://proxy.example:1080/", "socks5h://proxy.example:1080"),
    ],
)
@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_proxy_of_the_environment_is_used(environment: pytest.MonkeyPatch, name: str, value: str, proxy: str):
    environment.setenv(name, value)
    assert read_environment(URL)[0] == {"https": proxy}
    assert create_session(URL).proxies == {"https": proxy}
    UpstreamRoute(URL).open_pool(lambda: None)


@pytest.mark.parametrize("host", ["127.0.0.1:9", "127.8.8.8", "localhost:80", "LOCALHOST.", "api.localhost", "[::1]:9"])
def test_own_loopback_is_reached_without_a_proxy(environment: pytest.MonkeyPatch, host: str):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        environment.setenv(name, "http://127.0.0.1:9")
    assert read_environment(f"http://{host}/v1")[0] == {}


def test_no_proxy_excepts_hosts(environment: pytest.MonkeyPatch):
    environment.setenv("all_proxy", "http://proxy.example:3128")
    environment.setenv("no_proxy", "up.example")
    assert read_environment(URL)[0] == {}


def build_settings(**pool: str) -> Settings:
    return Settings(pools=(PoolSettings(**({"upstream_url": URL, "token_url": URL} | pool)),))


@pytest.mark.parametrize(
    "value", ["socks6://user:hush@p:1", "http://user:hu#sh@p:1", "http://", "http://user:hush@p:port", ":0", "p:70000"]
)
def test_unusable_proxy_of_the_environment_is_named_and_not_shown(environment: pytest.MonkeyPatch, value: str):
    environment.setenv("https_proxy", value)
    with pytest.raises(SettingsError, match="HTTPS_PROXY") as caught:
        check_files(build_settings())
    assert "hu" not in str(caught.value)
    check_files(build_settings(upstream_url="http://127.0.0.1:9/v1", token_url="http://localhost/token"))
    check_files(build_settings(proxy="http://proxy.example:3128"))


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_missing_ca_bundle_of_the_environment_is_named_where_it_would_be_used(
    environment: pytest.MonkeyPatch, tmp_path: Path, name: str
):
    environment.setenv(name, str(tmp_path / "nope.pem"))
    with pytest.raises(SettingsError, match=f"{name}: .*nope.pem"):
        check_files(build_settings())
    check_files(build_settings(upstream_url="http://127.0.0.1:9/v1", token_url="http://127.0.0.1:9/token"))
