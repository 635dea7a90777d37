"""The endpoints of an authorization server come from its own metadata, and stay within TLS."""

from dataclasses import replace

import pytest

from shared.settings.schema import PoolSettings
from workers.sign_in.errors import SignInFailed
from workers.sign_in.metadata import Endpoints, choose_endpoints, list_metadata_urls, read_metadata

ISSUER = "https://login.example/tenant"


@pytest.mark.parametrize("issuer", [ISSUER, f"{ISSUER}/", f"{ISSUER}/.well-known/openid-configuration"])
def test_metadata_is_looked_for_where_both_standards_put_it(issuer: str):
    assert list_metadata_urls(issuer) == [
        "https://login.example/tenant/.well-known/openid-configuration",
        "https://login.example/.well-known/oauth-authorization-server/tenant",
        "https://login.example/.well-known/openid-configuration/tenant",
    ]


def test_metadata_of_another_issuer_is_refused():
    with pytest.raises(SignInFailed, match="evil"):
        read_metadata({"issuer": "https://evil.example"}, ISSUER)


def test_issuer_is_compared_without_its_last_slash_and_used_as_it_names_itself():
    assert read_metadata({"issuer": f"{ISSUER}/"}, ISSUER).issuer == f"{ISSUER}/"


def test_endpoint_without_tls_is_none_where_the_issuer_has_tls():
    metadata = {"issuer": ISSUER, "token_endpoint": "http://login.example/token", "jwks_uri": 7}
    endpoints = read_metadata(metadata, ISSUER)
    assert (endpoints.token_url, endpoints.keys_url) == ("", "")


def test_settings_go_before_the_metadata():
    pool = PoolSettings(token_url="https://a.example/token", device_url="https://a.example/device")
    found = Endpoints(ISSUER, "https://b.example/authorize", "https://b.example/token", "https://b.example/device")
    chosen = choose_endpoints(pool, found)
    expected = replace(found, token_url="https://a.example/token", device_url="https://a.example/device")
    assert chosen == expected
