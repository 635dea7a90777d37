"""Token requests have the grant of the credential's kind, and clients authenticate as RFC 6749 section 2.3.1 says."""

import base64
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from shared.credentials.kinds import encode_client, encode_service_account
from shared.settings.schema import PoolSettings
from workers.credentials.token_endpoint.client import own_headers
from workers.credentials.token_endpoint.jwt_signing import sign_jwt
from workers.credentials.token_endpoint.token_request import authenticate, build_token_request, find_client, list_ways


def build(pool: PoolSettings, way: str, secret: str = "rt") -> dict[str, Any]:
    """The arguments of a token request, with the client in that way."""
    return authenticate(build_token_request(pool, secret), pool, find_client(pool, secret), way)


def test_form_request_follows_rfc_6749():
    pool = PoolSettings(client_id="app", scope="chat")
    assert build(pool, "body") == {
        "data": {"grant_type": "refresh_token", "refresh_token": "rt", "client_id": "app", "scope": "chat"}
    }


def test_json_and_bearer_requests_are_the_alternatives():
    pool = PoolSettings(token_request="json", client_id="app", client_secret="hush")
    fields = build(pool, "body")["json"]
    assert (fields["refresh_token"], fields["client_secret"]) == ("rt", "hush")
    pool = PoolSettings(token_request="bearer", client_id="app", client_secret="hush")
    assert build(pool, "body") == {
        "data": b"",
        "headers": {"authorization": "Bearer rt"},
    }


def basic(text: str) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


def test_basic_authentication_is_form_encoded_and_leaves_the_body_without_the_client():
    pool = PoolSettings(client_id="app", client_secret="a:b/c d")
    assert build(pool, "basic")["headers"] == basic("app:a%3Ab%2Fc+d")
    assert build(pool, "plain")["headers"] == basic("app:a:b/c d")
    assert build(pool, "basic")["data"] == {"grant_type": "refresh_token", "refresh_token": "rt"}


@pytest.mark.parametrize(
    ("settings", "ways"),
    [
        ({}, ["body"]),
        ({"client_id": "app"}, ["body"]),
        ({"client_id": "app", "client_secret": "hush"}, ["body", "basic"]),
        ({"client_id": "app", "client_secret": "a/b"}, ["body", "basic", "plain"]),
        ({"client_id": "app", "client_secret": "a/b", "token_auth": "basic"}, ["basic", "plain"]),
        ({"client_id": "app", "client_secret": "hush", "token_auth": "body"}, ["body"]),
        ({"client_id": "app", "client_secret": "hush", "token_request": "bearer"}, ["body"]),
        ({"client_id": "app", "token_auth": "private_key_jwt"}, ["jwt"]),
    ],
)
def test_ways_of_authentication_are_those_that_the_settings_allow(settings: dict[str, str], ways: list[str]):
    pool = PoolSettings(**settings)
    assert list_ways(pool, find_client(pool, "rt")) == ways


def test_operator_names_the_farm_and_adds_headers_to_token_requests_but_shows_them_no_other_header():
    headers = {"User-Agent": "acme/1", "X-Upstream-Key": "hush"}
    pool = PoolSettings(headers=headers)
    assert own_headers(pool) == {"user-agent": "acme/1"}
    pool = PoolSettings(headers=headers, token_headers={"User-Agent": "acme-login/2", "X-Tenant": "7"})
    assert own_headers(pool) == {"user-agent": "acme-login/2", "x-tenant": "7"}


# Kinds of credential


def test_a_client_asks_for_itself_and_extra_parameters_are_sent_but_replace_nothing():
    parameters = {"audience": "https://api.example", "grant_type": "password"}
    pool = PoolSettings(
        credential_kind="client_credentials", client_id="app", token_parameters=parameters, scope="chat"
    )
    secret = encode_client("id-a", "hush")
    assert build(pool, "body", secret)["data"] == {
        "grant_type": "client_credentials",
        "audience": "https://api.example",
        "scope": "chat",
        "client_id": "id-a",
        "client_secret": "hush",
    }
    assert build(pool, "basic", secret)["headers"] == basic("id-a:hush")


def encode_key(key: Any) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def decode_part(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "==")


def read_jwt(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    """Header, claims, what is signed, and the signature."""
    signed, _, signature = token.rpartition(".")
    header, claims = (json.loads(decode_part(part)) for part in signed.split("."))
    return header, claims, signed.encode(), decode_part(signature)


def test_a_service_account_signs_an_assertion_for_its_token_endpoint_with_the_scope_in_it():
    key = rsa.generate_private_key(65537, 2048)
    account = {"client_email": "robot@x.com", "private_key_id": "k1", "private_key": encode_key(key)}
    pool = PoolSettings(credential_kind="service_account", token_url="https://login.example/token", scope="chat")
    fields = build(pool, "body", encode_service_account(account))["data"]
    assert fields["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    header, claims, signed, signature = read_jwt(fields["assertion"])
    key.public_key().verify(signature, signed, padding.PKCS1v15(), SHA256())
    assert header == {"alg": "RS256", "typ": "JWT", "kid": "k1"}
    assert (claims["iss"], claims["sub"], claims["scope"]) == ("robot@x.com", "robot@x.com", "chat")
    assert (claims["aud"], 0 < claims["exp"] - claims["iat"] <= 3600) == ("https://login.example/token", True)
    google = encode_service_account({**account, "token_uri": "https://oauth2.example/token"})
    assert read_jwt(build(pool, "body", google)["data"]["assertion"])[1]["aud"] == "https://oauth2.example/token"


def test_a_service_account_may_name_the_user_for_whom_it_asks_and_is_early_enough_for_a_slow_clock():
    key = encode_key(ec.generate_private_key(ec.SECP256R1()))
    account = {"client_email": "robot", "subject": "user@x.com", "private_key": key}
    pool = PoolSettings(credential_kind="service_account", token_url="https://login.example/token")
    fields = build(pool, "body", encode_service_account(account))["data"]
    _, claims, _, _ = read_jwt(fields["assertion"])
    assert (claims["iss"], claims["sub"], "scope" in claims) == ("robot", "user@x.com", False)
    assert claims["iat"] <= time.time() - 5


def verify_ecdsa(key: Any, algorithm: Any, size: int, signed: bytes, signature: bytes) -> None:
    """RFC 7518 section 3.4: two numbers of fixed size."""
    assert len(signature) == 2 * size
    numbers = (int.from_bytes(part, "big") for part in (signature[:size], signature[size:]))
    key.public_key().verify(encode_dss_signature(*numbers), signed, ec.ECDSA(algorithm))


@pytest.mark.parametrize(
    ("curve", "name", "algorithm", "size"),
    [
        (ec.SECP256R1(), "ES256", SHA256(), 32),
        (ec.SECP384R1(), "ES384", SHA384(), 48),
        (ec.SECP521R1(), "ES512", SHA512(), 66),
    ],
)
def test_each_curve_signs_by_its_algorithm(curve: Any, name: str, algorithm: Any, size: int):
    key = ec.generate_private_key(curve)
    header, _, signed, signature = read_jwt(sign_jwt({"iss": "a"}, encode_key(key)))
    verify_ecdsa(key, algorithm, size, signed, signature)
    assert header["alg"] == name


def test_a_key_that_needs_a_password_is_an_error():
    key = ed25519.Ed25519PrivateKey.generate()
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hush")).decode()
    with pytest.raises(ValueError, match="can't be read"):
        sign_jwt({}, locked)


def test_a_client_with_a_private_key_sends_an_assertion_in_place_of_its_secret():
    key = ec.generate_private_key(ec.SECP256R1())
    pool = PoolSettings(
        token_url="https://login.example/token",
        client_id="app",
        client_secret="hush",
        token_auth="private_key_jwt",
        token_auth_key=encode_key(key),
        token_auth_kid="k2",
    )
    fields = build(pool, "jwt")["data"]
    assert (fields["client_id"], "client_secret" in fields) == ("app", False)
    assert fields["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    header, claims, signed, signature = read_jwt(fields["client_assertion"])
    verify_ecdsa(key, SHA256(), 32, signed, signature)
    assert (header["alg"], header["kid"], claims["iss"], claims["sub"]) == ("ES256", "k2", "app", "app")
    assert claims["jti"] != read_jwt(build(pool, "jwt")["data"]["client_assertion"])[1]["jti"]


def test_ed25519_keys_sign_and_a_key_that_cannot_is_an_error():
    key = ed25519.Ed25519PrivateKey.generate()
    header, _, signed, signature = read_jwt(sign_jwt({"iss": "a"}, encode_key(key)))
    key.public_key().verify(signature, signed)
    assert header["alg"] == "EdDSA"
    with pytest.raises(ValueError, match="neither RSA"):
        sign_jwt({}, encode_key(ec.generate_private_key(ec.SECP256K1())))
