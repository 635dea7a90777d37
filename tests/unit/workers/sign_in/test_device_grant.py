"""The device grant polls as slowly as the server asks, and tells waiting from refusal (RFC 8628)."""

import json

import pytest

from workers.credentials.token_endpoint.token_response import TokenResponse
from workers.sign_in.device_grant import judge_poll, read_authorization
from workers.sign_in.errors import SignInFailed

BEGUN = {"device_code": "d", "user_code": "ABCD-EFGH", "verification_uri": "https://login.example/device"}


def respond(status: int = 400, **fields: object) -> TokenResponse:
    return TokenResponse(status, json.dumps(fields).encode())


def test_complete_page_is_preferred_and_the_interval_is_five_seconds_by_default():
    complete = "https://login.example/device?user_code=ABCD-EFGH"
    authorization = read_authorization(respond(200, **BEGUN, verification_uri_complete=complete, expires_in=900))
    assert (authorization.url, authorization.interval, authorization.lifetime) == (complete, 5.0, 900.0)


def test_googles_spelling_of_the_page_is_understood():
    fields = {name: value for name, value in BEGUN.items() if name != "verification_uri"}
    authorization = read_authorization(respond(200, **fields, verification_url="https://login.example/d", interval=2))
    assert (authorization.url, authorization.interval) == ("https://login.example/d", 2.0)


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (respond(400, error="unauthorized_client"), "unauthorized_client"),
        (respond(404), "http_404"),
        (respond(200, **{**BEGUN, "verification_uri": "javascript:alert(1)"}), "http_200"),
    ],
)
def test_unusable_device_authorization_fails(response: TokenResponse, code: str):
    with pytest.raises(SignInFailed) as caught:
        read_authorization(response)
    assert caught.value.code == code


def test_pending_poll_waits_and_slow_down_waits_longer():
    assert judge_poll(respond(error="authorization_pending"), 5.0) == (None, 5.0)
    assert judge_poll(respond(error="slow_down"), 5.0) == (None, 10.0)
    assert judge_poll(respond(503), 5.0) == (None, 10.0)


@pytest.mark.parametrize(
    ("error", "state"), [("access_denied", "failed"), ("expired_token", "expired"), ("invalid_grant", "failed")]
)
def test_decision_against_it_ends_the_sign_in(error: str, state: str):
    with pytest.raises(SignInFailed) as caught:
        judge_poll(respond(error=error), 5.0)
    assert caught.value.state == state


def test_tokens_end_the_polls():
    grant, _ = judge_poll(respond(200, access_token="at", refresh_token="rt", id_token="a.b.c"), 5.0)
    assert grant is not None
    assert (grant.access_token, grant.refresh_token, grant.id_token) == ("at", "rt", "a.b.c")
