"""Refresh tokens that would cross the network unencrypted are called out at start."""

import pytest

from shared.settings.schema import PoolSettings, Settings
from workers.process.main import warn_of_plain_http


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://login.example.com/token", True),
        ("http://192.0.2.1/token", True),
        ("https://login.example.com/token", False),
        ("http://127.0.0.2:9/token", False),
        ("http://[::1]:9/token", False),
        ("http://localhost/token", False),
        ("", False),
    ],
)
def test_token_url_without_tls_is_a_warning_unless_it_is_loopback(caplog, url: str, warned: bool):
    warn_of_plain_http(Settings(pools=(PoolSettings(token_url=url),)))
    warn_of_plain_http(Settings(pools=(PoolSettings(revocation_url=url),)))
    assert [record.action for record in caplog.records] == ["plain_http"] * 2 * warned
