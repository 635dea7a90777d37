"""An authorization request is tied to its answer by state, nonce, PKCE and issuer."""

from urllib.parse import parse_qs, urlsplit

import pytest

from shared.settings.schema import PoolSettings
from workers.sign_in.authorization_code import (
    Challenge,
    build_authorize_url,
    build_refusal,
    compute_code_challenge,
    read_code,
)
from workers.sign_in.errors import SignInFailed
from workers.sign_in.metadata import Endpoints

ISSUER = "https://login.example"
ENDPOINTS = Endpoints(ISSUER, f"{ISSUER}/authorize?access_type=offline", f"{ISSUER}/token")
CHALLENGE = Challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "the state", "the nonce")


def read_query(pool: PoolSettings) -> dict[str, str]:
    url = build_authorize_url(pool, ENDPOINTS, "http://127.0.0.1:1/callback", CHALLENGE)
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def test_code_challenge_is_that_of_the_standards_example():
    """RFC 7636 appendix B."""
    assert compute_code_challenge(CHALLENGE.verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_request_has_all_that_ties_the_answer_to_it_and_keeps_the_endpoints_query():
    query = read_query(PoolSettings(client_id="mine", issuer=ISSUER))
    assert query == {
        "response_type": "code",
        "client_id": "mine",
        "redirect_uri": "http://127.0.0.1:1/callback",
        "scope": "openid offline_access",
        "state": "the state",
        "nonce": "the nonce",
        "code_challenge_method": "S256",
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "prompt": "consent",
        "access_type": "offline",
    }


def test_configured_scope_is_requested_as_it_is():
    query = read_query(PoolSettings(client_id="mine", issuer=ISSUER, scope="api"))
    assert query["scope"] == "api"
    assert "nonce" not in query


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"code": "c", "iss": "https://evil.example"}, "issuer_mismatch"),
        ({"error": "access_denied", "iss": "https://evil.example"}, "issuer_mismatch"),
        ({"error": "access_denied"}, "access_denied"),
        ({"error": "<b>no code</b>"}, "invalid_answer"),
        ({}, "invalid_answer"),
    ],
)
def test_answer_that_is_none_of_the_issuers_or_no_code_fails(answer: dict[str, str], code: str):
    with pytest.raises(SignInFailed) as caught:
        read_code(answer, ENDPOINTS)
    assert caught.value.code == code


def test_issuer_that_names_itself_in_answers_must_do_so():
    endpoints = Endpoints(ISSUER, names_itself=True)
    with pytest.raises(SignInFailed, match="RFC 9207"):
        read_code({"code": "c"}, endpoints)
    assert read_code({"code": "c", "iss": ISSUER}, endpoints) == "c"
    assert read_code({"code": "c"}, ENDPOINTS) == "c"


def test_expired_device_code_is_no_failure():
    assert build_refusal("expired_token").state == "expired"
