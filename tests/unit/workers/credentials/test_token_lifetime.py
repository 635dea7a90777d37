"""The lifetime of an access token is found in every form in which endpoints tell it."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import formatdate
from time import time

import pytest

from workers.credentials.token_endpoint.token_lifetime import (
    DEFAULT_LIFETIME_SECONDS,
    MAX_LIFETIME_SECONDS,
    SHORT_LIFETIME_SECONDS,
    find_lifetime,
)


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [
        (30, 30),
        ("30", 30),
        (" 30\n", 30),
        ("30.5", 30.5),
        ("30s", 30),
        ("30 seconds", 30),
        (3e1, 30),
        (0.5, 0.5),
        (0, SHORT_LIFETIME_SECONDS),
        ("-5", SHORT_LIFETIME_SECONDS),
        (1e12, MAX_LIFETIME_SECONDS),
        ("Infinity", MAX_LIFETIME_SECONDS),
        (10**400, DEFAULT_LIFETIME_SECONDS),
        ("NaN", DEFAULT_LIFETIME_SECONDS),
        (True, DEFAULT_LIFETIME_SECONDS),
        ("soon", DEFAULT_LIFETIME_SECONDS),
        ("", DEFAULT_LIFETIME_SECONDS),
        (None, DEFAULT_LIFETIME_SECONDS),
        ([3600], DEFAULT_LIFETIME_SECONDS),
        ({}, DEFAULT_LIFETIME_SECONDS),
    ],
)
def test_lifetime_is_parsed_whatever_is_sent(expires_in: object, seconds: float):
    assert find_lifetime({"expiresin": expires_in}, "at") == seconds


@pytest.mark.parametrize(
    "build_fields",
    [
        lambda at: {"expiresin": at},
        lambda at: {"expiresin": str(int(at))},
        lambda at: {"expiredin": at * 1000},
        lambda at: {"expiresat": int(at)},
        lambda at: {"expireson": str(int(at))},
        lambda at: {"expirydate": int(at * 1000)},
        lambda at: {"expiresat": datetime.fromtimestamp(at, UTC).isoformat()},
        lambda at: {"expiresat": datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")},
        lambda at: {"expiresat": datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")},
        lambda at: {"expires": formatdate(at, usegmt=True)},
        lambda _: {"expires": 5000},
        lambda at: {"expiresin": "soon", "expiresat": at},
    ],
)
def test_expiry_may_be_a_time_in_any_unit_and_form(build_fields: Callable[[float], dict[str, object]]):
    assert find_lifetime(build_fields(time() + 5000), "at") == pytest.approx(5000, abs=60)


def build_jwt(**claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{payload}.sig"


def test_expiry_claim_of_a_jwt_counts_when_the_response_has_no_lifetime():
    token = build_jwt(exp=int(time() + 600))
    assert find_lifetime({}, token) == pytest.approx(600, abs=60)
    assert find_lifetime({"expiresin": 30}, token) == 30


@pytest.mark.parametrize(
    "token", ["a.b.c", "a.%%%.c", build_jwt(), build_jwt(exp="x"), build_jwt(exp=7), "....", "aé.b.c"]
)
def test_other_tokens_live_for_the_default_time(token: str):
    assert find_lifetime({}, token) == DEFAULT_LIFETIME_SECONDS
