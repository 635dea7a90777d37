"""The caller's address is taken from X-Forwarded-For only behind a trusted proxy."""

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from web.server.client_address import TrustedProxies


def find_address(peer: str, forwarded: str, *trusted: str) -> str:
    headers = {"x-forwarded-for": forwarded} if forwarded else {}
    environ = EnvironBuilder("/", headers=headers).get_environ()
    return TrustedProxies(trusted).find_caller_address(Request({**environ, "REMOTE_ADDR": peer}))


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "expected"),
    [
        ("10.0.0.1", "", ["10.0.0.0/8"], "10.0.0.1"),
        ("10.0.0.1", "192.0.2.1", [], "10.0.0.1"),
        ("198.51.100.1", "192.0.2.1", ["10.0.0.0/8"], "198.51.100.1"),
        ("10.0.0.1", "192.0.2.1", ["10.0.0.0/8"], "192.0.2.1"),
        ("10.0.0.1", "1.1.1.1, 192.0.2.1, 10.0.0.2", ["10.0.0.0/8"], "192.0.2.1"),
        ("10.0.0.1", "10.0.0.3,10.0.0.2", ["10.0.0.0/8"], "10.0.0.3"),
        ("::ffff:10.0.0.1", "2001:db8::1", ["10.0.0.0/8"], "2001:db8::1"),
        ("::1", "[2001:db8::1]:443", ["::1/128"], "2001:db8::1"),
        ("10.0.0.1", "192.0.2.1:5000", ["10.0.0.0/8"], "192.0.2.1"),
        ("10.0.0.1", "nonsense", ["10.0.0.0/8"], "nonsense"),
        ("10.0.0.1", "192.0.2.1, ,", ["10.0.0.0/8"], "192.0.2.1"),
        ("", "", ["10.0.0.0/8"], ""),
        ("", "192.0.2.1", [], "192.0.2.1"),
        ("", "1.1.1.1, 192.0.2.1, 10.0.0.2", ["10.0.0.0/8"], "192.0.2.1"),
        ("", "1.1.1.1, []", [], ""),
    ],
)
def test_forwarded_address_is_believed_only_from_trusted_proxies(
    peer: str, forwarded: str, trusted: list[str], expected: str
):
    assert find_address(peer, forwarded, *trusted) == expected
