"""Token responses are understood in all forms that endpoints send: RFC 6749 section 5, and its deviations."""

import json
from email.utils import formatdate
from time import time
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import InvalidGrant, TokenEndpointDown, TokenError
from shared.parsing import parse_retry_after
from workers.credentials.token_endpoint.token_response import TokenGrant, TokenResponse, parse_token_response


def build_body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def parse(status: int, body: bytes, retry_after: str | None = None, **options: object) -> TokenGrant:
    return parse_token_response(TokenResponse(status, body, retry_after), **options)


def refuse(status: int, body: bytes) -> TokenError:
    with pytest.raises(TokenError) as caught:
        parse(status, body)
    return caught.value


def test_grant_is_parsed():
    grant = parse(200, build_body(access_token="at", expires_in="30", refresh_token="rt2"))
    assert (grant.access_token, grant.expires_in, grant.refresh_token) == ("at", 30.0, "rt2")


FIELDS = {"access_token": "a+t/1=", "token_type": "bearer", "expires_in": "28800", "refresh_token": "r 2"}


@pytest.mark.parametrize(
    "body",
    [
        build_body(**FIELDS),
        b"\xef\xbb\xbf" + build_body(**FIELDS),
        json.dumps(FIELDS).encode("utf-16"),
        b"\r\n " + build_body(**FIELDS) + b"\n",
        build_body(**FIELDS, error=None),
        build_body(**FIELDS, error=""),
        build_body(**FIELDS, error=False, errors=[], code=0),
        build_body(accessToken="a+t/1=", tokenType="Bearer", expiresIn=28800, refreshToken="r 2"),
        build_body(code=200, message="success", data=FIELDS),
        build_body(code=20000, data=FIELDS),
        build_body(status=0, body=FIELDS),
        build_body(result=FIELDS),
        urlencode(FIELDS).encode(),
        urlencode(FIELDS).encode() + b"&error=\n",
    ],
)
def test_grant_is_understood_in_every_form(body: bytes):
    grant = parse(200, body)
    assert (grant.access_token, grant.expires_in, grant.refresh_token) == ("a+t/1=", 28800.0, "r 2")


@pytest.mark.parametrize("fields", [{}, {"refresh_token": ""}, {"refresh_token": " "}, {"refresh_token": None}])
def test_response_without_a_refresh_token_keeps_the_old_one(fields: dict[str, object]):
    assert parse(200, build_body(access_token="at", **fields)).refresh_token is None


@pytest.mark.parametrize("sent", ["at\n", " at ", "Bearer at", "bearer  at\r\n"])
def test_white_space_and_scheme_around_an_access_token_are_taken_off(sent: str):
    assert parse(200, build_body(access_token=sent)).access_token == "at"


@pytest.mark.parametrize(
    "sent", ["", "ключ", "a t", "a\nt", "a\tt", "a\x00t", "a\u00adt", "Bearer", 7, ["at"], {}, True]
)
def test_access_token_that_no_header_can_hold_is_a_bad_response(sent: object):
    failure = refuse(200, build_body(access_token=sent))
    assert isinstance(failure, TokenEndpointDown)
    assert failure.code == "no_access_token"


def test_white_space_around_a_rotated_refresh_token_is_taken_off():
    assert parse(200, build_body(access_token="at", refresh_token="rt2\n")).refresh_token == "rt2"


@pytest.mark.parametrize(
    "token_type", ["Bearer", "bearer", "BEARER", " Bearer ", "BearerToken", "bearer_token", "jwt-bearer", "", None]
)
def test_bearer_token_is_used_however_its_type_is_written(token_type: str | None):
    assert parse(200, build_body(access_token="at", token_type=token_type)).access_token == "at"


@pytest.mark.parametrize("token_type", ["DPoP", "mac", 7])
def test_token_of_a_type_that_is_not_understood_is_refused_with_the_reason(token_type: object):
    failure = refuse(200, build_body(access_token="at", token_type=token_type))
    assert isinstance(failure, TokenEndpointDown)
    assert failure.code == "unknown_token_type"
    assert f"type '{token_type}', and the farm can use only Bearer" in str(failure)


@pytest.mark.parametrize("fields", [{"access_token": "at", "token_type": "mac"}, {}, {"access_token": "ключ"}])
def test_rotated_refresh_token_of_an_unusable_grant_is_kept(fields: dict[str, object]):
    grant = parse(200, build_body(refresh_token="next", **fields))
    assert (grant.access_token, grant.refresh_token) == ("", "next")
    assert grant.unusable


def test_repr_of_a_grant_hides_its_tokens():
    body = build_body(access_token="secret", refresh_token="secret")
    assert "secret" not in repr(parse(200, body))
    assert "secret" not in repr(TokenResponse(200, body))


@pytest.mark.parametrize("status", [200, 400, 401, 403])
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (build_body(error="invalid_grant"), "invalid_grant"),
        (build_body(error="Invalid_Grant "), "invalid_grant"),
        (build_body(error="invalid_grant: Token is expired or invalid."), "invalid_grant"),
        (build_body(error={"code": "invalid_grant"}), "invalid_grant"),
        (build_body(error={"error": "invalid_grant", "message": "gone"}), "invalid_grant"),
        (build_body(error={"code": 401, "status": "INVALID_GRANT"}), "invalid_grant"),
        (build_body(error="invalid_request", error_code="refresh_token_expired"), "refresh_token_expired"),
        (
            build_body(error={"message": "x", "type": "invalid_request_error", "code": "refresh_token_reused"}),
            "refresh_token_reused",
        ),
        (build_body(errors=[{"code": "invalid_grant"}]), "invalid_grant"),
        (build_body(error_code="invalid_refresh_token"), "invalid_refresh_token"),
        (build_body(code="refresh_token_revoked", message="x"), "refresh_token_revoked"),
        (build_body(data={"error": "invalid_grant"}), "invalid_grant"),
        (b"error=bad_refresh_token&error_description=The+refresh+token+is+bad", "bad_refresh_token"),
        (build_body(error="bad_refresh_token", access_token=None), "bad_refresh_token"),
        (build_body(error="invalid_grant", access_token="at"), "invalid_grant"),
    ],
)
def test_code_for_a_bad_refresh_token_decides_whatever_the_status_and_the_form(status: int, body: bytes, code: str):
    failure = refuse(status, body)
    assert (type(failure), failure.code) == (InvalidGrant, code)


def test_settings_name_further_codes_for_a_bad_refresh_token():
    body = build_body(error={"code": 70008})
    assert type(refuse(400, body)) is TokenError
    with pytest.raises(InvalidGrant):
        parse(400, body, fatal_codes=["70008"])
    with pytest.raises(InvalidGrant):
        parse(403, b"<html>", fatal_codes=["http_403"])
    with pytest.raises(InvalidGrant):
        parse(400, build_body(error="invalid_grant"), fatal_codes=[])


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_failing_token_endpoint_is_never_an_invalid_grant(status: int):
    with pytest.raises(TokenEndpointDown) as caught:
        parse(status, build_body(error="invalid_grant"), "7")
    assert (caught.value.retry_after, caught.value.code) == (7, "")


@pytest.mark.parametrize("code", ["temporarily_unavailable", "server_error", "slow_down"])
@pytest.mark.parametrize("status", [200, 400])
def test_code_for_a_failing_endpoint_blames_no_token(code: str, status: int):
    assert isinstance(refuse(status, build_body(error=code)), TokenEndpointDown)


@pytest.mark.parametrize(
    ("status", "response", "code"),
    [
        (400, build_body(error="invalid_client"), "invalid_client"),
        (200, build_body(error="unauthorized_client"), "unauthorized_client"),
        (200, b"error=incorrect_client_credentials&error_description=no", "incorrect_client_credentials"),
        (401, build_body(error={"code": 401, "message": "no", "status": "UNAUTHENTICATED"}), "unauthenticated"),
        (200, build_body(errcode=40030, errmsg="no"), "40030"),
        (200, build_body(code=1302, msg="no"), "1302"),
        (200, build_body(error=True, message="no"), "http_200"),
        (401, b"<html>invalid_grant</html>", "http_401"),
        (404, b"", "http_404"),
        (403, build_body(error="the token ya29.secret is not valid"), "http_403"),
        (400, build_body(error="x" * 65), "http_400"),
        (400, build_body(error={"a": {"b": [[[]]]}}), "http_400"),
    ],
)
def test_other_refusals_are_not_fatal_and_show_their_code(status: int, response: bytes, code: str):
    failure = refuse(status, response)
    assert (type(failure), failure.code) == (TokenError, code)
    assert "secret" not in str(failure)


@pytest.mark.parametrize(
    "response", [b"", b"[]", b"<html>", b"at", build_body(token_type="Bearer"), build_body(access_token=""), b"a=b"]
)
def test_malformed_response_is_the_token_endpoints_fault(response: bytes):
    failure = refuse(200, response)
    assert (type(failure), failure.code) == (TokenEndpointDown, "no_access_token")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 304])
def test_redirect_is_refused_and_names_the_setting(status: int):
    target = "https://user:hush@login.example/v2/token?key=hush"
    with pytest.raises(TokenEndpointDown, match=r"to https://login.example/v2/token: set FARM_TOKEN_URL") as caught:
        parse_token_response(TokenResponse(status, b"", None, target))
    assert "hush" not in str(caught.value)
    for broken in ("", "http://[", "\n", "é"):
        with pytest.raises(TokenEndpointDown, match="FARM_TOKEN_URL"):
            parse_token_response(TokenResponse(status, b"", None, broken))


def test_retry_after_is_seconds_or_a_date():
    assert parse_retry_after("3.5") == 3.5
    assert parse_retry_after(formatdate(time() + 100, usegmt=True)) == pytest.approx(100, abs=3)
    assert parse_retry_after("soon") is None
    assert parse_retry_after(None) is None


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["access_token", "refresh_token", "token_type", "expires_in", "expires_at", "error", "errors", "code", "data"]
)


@settings(max_examples=40, deadline=None)
@given(
    status=st.sampled_from([200, 204, 302, 400, 401, 500]),
    body=st.dictionaries(NAMES, JSON_VALUES, max_size=5).map(lambda fields: json.dumps(fields).encode())
    | st.dictionaries(NAMES, st.text(), max_size=4).map(lambda fields: urlencode(fields, errors="replace").encode())
    | st.binary(max_size=40),
)
def test_whatever_is_sent_is_a_grant_or_a_token_error(status: int, body: bytes):
    try:
        grant = parse(status, body)
    except TokenError:
        return
    assert status < 300
    assert grant.unusable or (grant.access_token.isprintable() and 0 < grant.expires_in <= 86_400)
