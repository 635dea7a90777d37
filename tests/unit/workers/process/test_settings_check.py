"""The supervisor checks the settings before it forks, and reads the environment's proxies then."""

from pathlib import Path

import pytest

from shared.errors import SettingsError
from shared.settings.environment_network import read_environment
from shared.settings.schema import PoolSettings, Settings
from workers.process.main import check_settings
from workers.upstream.client import UpstreamRoute


def build_settings(**pool: str) -> Settings:
    urls = {"upstream_url": "http://up.example/v1", "token_url": "http://login.example/token"}
    return Settings(redis_url="redis://localhost", pools=(PoolSettings(**(urls | pool)),))


def test_proxies_are_read_before_the_fork(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    read_environment.cache_clear()
    check_settings(build_settings())
    read = read_environment.cache_info().misses
    assert read_environment("http://up.example/v1")[0] == {"http": "http://proxy.example:3128"}
    read_environment("http://login.example/token")
    UpstreamRoute("http://up.example/v1").open_pool(lambda: None)
    assert read_environment.cache_info().misses == read
    read_environment.cache_clear()


def test_unusable_settings_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(SettingsError, match="REDIS_URL is not set"):
        check_settings(Settings())
    for pool, named in (
        ({"ca_bundle": str(tmp_path / "none")}, "FARM_CA_BUNDLE"),
        ({"refresh_tokens_file": str(tmp_path / "none")}, "FARM_REFRESH_TOKENS_FILE"),
    ):
        with pytest.raises(SettingsError, match=named):
            check_settings(build_settings(**pool))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match=r"REQUESTS_CA_BUNDLE: .*none"):
        check_settings(build_settings(upstream_url="https://up.example/v1"))
