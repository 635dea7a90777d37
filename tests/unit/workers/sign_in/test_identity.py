"""An account is its issuer and subject; what names it for people is shown masked."""

import pytest

from shared.credentials.records import mask_account
from simulator.sign_in.id_tokens import IdTokenSigner
from workers.sign_in.identity import Identity, find_identity, read_claims


def test_account_is_read_from_a_json_web_token():
    token = IdTokenSigner("seed").sign({"iss": "https://login.example", "sub": "a1", "email": "a@b.example"})
    assert find_identity(read_claims(token)) == Identity("https://login.example", "a1", "a@b.example")


@pytest.mark.parametrize("token", ["", "sim-at-1", "a.b", "a.b.c", "a.!!!.c", "a.bnVsbA.c"])
def test_opaque_token_names_nobody(token: str):
    assert find_identity(read_claims(token)) is None


@pytest.mark.parametrize(
    "claims", [{}, {"sub": "a"}, {"iss": "i"}, {"iss": 1, "sub": "a"}, {"iss": "i", "sub": "s" * 501}]
)
def test_account_without_issuer_or_subject_is_not_known(claims):
    assert find_identity(claims) is None


def test_userinfo_has_the_issuer_that_was_asked():
    assert find_identity({"sub": "a1", "name": "Ada\x1b[31m"}, "i") == Identity("i", "a1", "Ada[31m")


def test_same_subject_at_another_issuer_is_another_account():
    assert Identity("i", "a").digest != Identity("j", "a").digest
    assert Identity("i", "a", "x").digest == Identity("i", "a", "y").digest


@pytest.mark.parametrize(
    ("account", "masked"),
    [
        ("", ""),
        ("@", ""),
        ("alice@example.com", "a***e@example.com"),
        ("al@example.com", "a***@example.com"),
        ("Ada Lovelace", "A***e"),
    ],
)
def test_account_can_be_recognised_but_not_read(account: str, masked: str):
    assert mask_account(account) == masked
