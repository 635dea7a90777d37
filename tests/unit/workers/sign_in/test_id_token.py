"""An id token counts only with the issuer's signature, for this client, now, and for this request."""

import time
from typing import Any

import pytest

from simulator.sign_in.id_tokens import IdTokenSigner, encode_segment
from workers.sign_in.errors import SignInFailed
from workers.sign_in.id_token import verify_id_token

ISSUER = "https://login.example"
SIGNER = IdTokenSigner("seed")
CLAIMS = {
    "iss": ISSUER,
    "aud": "mine",
    "sub": "a1",
    "iat": int(time.time()),
    "exp": int(time.time()) + 300,
    "nonce": "n",
}


def verify(token: str, nonce: str = "n") -> dict[str, Any]:
    return verify_id_token(token, SIGNER.publish(), ISSUER, "mine", nonce)


def test_valid_token_is_read():
    assert verify(SIGNER.sign(CLAIMS))["sub"] == "a1"
    assert verify(SIGNER.sign({**CLAIMS, "aud": ["mine", "other"], "azp": "mine"}))["sub"] == "a1"


def test_device_grant_needs_no_nonce():
    assert verify(SIGNER.sign({name: value for name, value in CLAIMS.items() if name != "nonce"}), nonce="")


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example"},
        {"aud": "another client"},
        {"exp": 1},
        {"iat": int(time.time()) + 3600},
        {"nonce": "another request"},
        {"nonce": None},
        {"azp": "another client"},
        {"sub": None},
    ],
)
def test_claim_that_does_not_fit_is_refused(changes: dict[str, Any]):
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}
    with pytest.raises(SignInFailed) as caught:
        verify(SIGNER.sign(claims))
    assert caught.value.code == "invalid_id_token"


def test_signature_of_another_key_is_refused():
    with pytest.raises(SignInFailed):
        verify(IdTokenSigner("another seed").sign(CLAIMS))


def test_token_without_signature_is_refused():
    header, payload = encode_segment(b'{"alg": "none"}'), SIGNER.sign(CLAIMS).split(".")[1]
    with pytest.raises(SignInFailed):
        verify(f"{header}.{payload}.")


def test_unknown_key_beside_a_good_one_does_no_harm():
    keys = {"keys": [{"kty": "quantum"}, *SIGNER.publish()["keys"]]}
    assert verify_id_token(SIGNER.sign(CLAIMS), keys, ISSUER, "mine", "n")
    with pytest.raises(SignInFailed):
        verify_id_token(SIGNER.sign(CLAIMS), {"keys": [{"kty": "quantum"}]}, ISSUER, "mine", "n")
