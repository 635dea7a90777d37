"""Token requests and token responses follow RFC 6749."""

import json
from email.utils import formatdate
from time import time

import pytest

from shared.errors import InvalidGrant, TokenEndpointDown, TokenError
from shared.parsing import parse_retry_after
from shared.settings.schema import PoolSettings
from workers.credentials.token_endpoint import (
    DEFAULT_LIFETIME_SECONDS,
    MAX_LIFETIME_SECONDS,
    SHORT_LIFETIME_SECONDS,
    build_token_request,
    parse_lifetime,
    parse_token_response,
)


def build_body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def test_form_request_follows_rfc_6749():
    pool = PoolSettings(client_id="app", scope="chat")
    assert build_token_request(pool, "rt") == {
        "data": {"grant_type": "refresh_token", "refresh_token": "rt", "client_id": "app", "scope": "chat"}
    }


def test_json_and_bearer_requests_are_the_alternatives():
    assert build_token_request(PoolSettings(token_request="json"), "rt")["json"]["refresh_token"] == "rt"
    assert build_token_request(PoolSettings(token_request="bearer"), "rt") == {
        "data": b"",
        "headers": {"authorization": "Bearer rt"},
    }


def test_grant_is_parsed():
    grant = parse_token_response(200, build_body(access_token="at", expires_in="30", refresh_token="rt2"))
    assert (grant.access_token, grant.expires_in, grant.refresh_token) == ("at", 30.0, "rt2")


@pytest.mark.parametrize("fields", [{}, {"refresh_token": ""}, {"refresh_token": None}])
def test_response_without_a_refresh_token_keeps_the_old_one(fields: dict[str, object]):
    grant = parse_token_response(200, build_body(access_token="at", **fields))
    assert grant.refresh_token is None
    assert grant.expires_in == DEFAULT_LIFETIME_SECONDS


@pytest.mark.parametrize("token_type", ["Bearer", "bearer", "BEARER", "", None])
def test_bearer_token_is_used_however_its_type_is_written(token_type: str | None):
    assert parse_token_response(200, build_body(access_token="at", token_type=token_type)).access_token == "at"


@pytest.mark.parametrize("token_type", ["DPoP", "mac", 7])
def test_token_of_a_type_that_is_not_understood_is_refused_with_the_reason(token_type: object):
    with pytest.raises(TokenEndpointDown, match=f"type '{token_type}', and the farm can use only Bearer"):
        parse_token_response(200, build_body(access_token="at", token_type=token_type))


@pytest.mark.parametrize("fields", [{"access_token": "at", "token_type": "mac"}, {}])
def test_rotated_refresh_token_of_an_unusable_grant_is_kept(fields: dict[str, object]):
    grant = parse_token_response(200, build_body(refresh_token="next", **fields))
    assert (grant.access_token, grant.refresh_token) == ("", "next")
    assert grant.unusable


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [
        (30, 30),
        ("30", 30),
        (0.5, 0.5),
        (0, SHORT_LIFETIME_SECONDS),
        ("-5", SHORT_LIFETIME_SECONDS),
        (1e12, MAX_LIFETIME_SECONDS),
        ("Infinity", MAX_LIFETIME_SECONDS),
        (10**400, DEFAULT_LIFETIME_SECONDS),
        ("NaN", DEFAULT_LIFETIME_SECONDS),
        (True, DEFAULT_LIFETIME_SECONDS),
        ("soon", DEFAULT_LIFETIME_SECONDS),
        (None, DEFAULT_LIFETIME_SECONDS),
        ([3600], DEFAULT_LIFETIME_SECONDS),
    ],
)
def test_lifetime_is_parsed_whatever_is_sent(expires_in: object, seconds: float):
    assert parse_lifetime(expires_in) == seconds


def test_repr_of_a_grant_hides_its_tokens():
    assert "secret" not in repr(parse_token_response(200, build_body(access_token="secret", refresh_token="secret")))


@pytest.mark.parametrize("status", [400, 401])
def test_invalid_grant_is_fatal(status: int):
    with pytest.raises(InvalidGrant):
        parse_token_response(status, build_body(error="invalid_grant"))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_failing_token_endpoint_is_never_an_invalid_grant(status: int):
    with pytest.raises(TokenEndpointDown) as caught:
        parse_token_response(status, build_body(error="invalid_grant"), "7")
    assert caught.value.retry_after == 7


@pytest.mark.parametrize(
    ("status", "response"),
    [
        (400, build_body(error="invalid_client")),
        (401, b"<html>invalid_grant</html>"),
        (403, build_body(error={"code": "invalid_grant"})),
    ],
)
def test_other_refusals_are_not_fatal(status: int, response: bytes):
    with pytest.raises(TokenError) as caught:
        parse_token_response(status, response)
    assert type(caught.value) is TokenError


@pytest.mark.parametrize(
    "response", [b"", b"[]", b"<html>", build_body(token_type="Bearer"), build_body(access_token="")]
)
def test_malformed_response_is_the_token_endpoints_fault(response: bytes):
    with pytest.raises(TokenEndpointDown):
        parse_token_response(200, response)


def test_retry_after_is_seconds_or_a_date():
    assert parse_retry_after("3.5") == 3.5
    assert parse_retry_after(formatdate(time() + 100, usegmt=True)) == pytest.approx(100, abs=3)
    assert parse_retry_after("soon") is None
    assert parse_retry_after(None) is None
