"""Signs JSON Web Tokens (RFC 7519): the assertions of service accounts and of clients (RFC 7523)."""

import base64
import json
import secrets
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from shared import clock

#: Seconds for which an assertion is valid; it is sent at once.
LIFETIME_SECONDS = 300
#: Seconds by which it is issued in the past, for an endpoint whose clock is behind.
CLOCK_SKEW_SECONDS = 10
#: Curve -> algorithm and hash (RFC 7518 section 3.4).
CURVES: Mapping[str, tuple[str, HashAlgorithm]] = {
    "secp256r1": ("ES256", SHA256()),
    "secp384r1": ("ES384", SHA384()),
    "secp521r1": ("ES512", SHA512()),
}


def sign_assertion(issuer: str, subject: str, audience: str, pem: str, key_id: str = "", **claims: Any) -> str:
    """A JWT for a token request (RFC 7523 section 3), good once. Raises ValueError when the key can't sign."""
    now = int(clock.now())
    times = {"iat": now - CLOCK_SKEW_SECONDS, "exp": now + LIFETIME_SECONDS, "jti": secrets.token_hex(16)}
    return sign_jwt({"iss": issuer, "sub": subject, "aud": audience, **times, **claims}, pem, key_id)


def sign_jwt(claims: Mapping[str, Any], pem: str, key_id: str = "") -> str:
    """Signs with the algorithm that the key is for: RS256, ES256 to ES512 or EdDSA. Raises ValueError."""
    try:
        key = load_pem_private_key(pem.encode(), None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"the private key can't be read ({type(error).__name__})") from None
    header = {"alg": find_algorithm(key), "typ": "JWT", **({"kid": key_id} if key_id else {})}
    signed = b".".join(encode_part(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
    return b".".join((signed, encode_part(sign(key, signed)))).decode()


def find_algorithm(key: Any) -> str:
    if isinstance(key, rsa.RSAPrivateKey):
        return "RS256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "EdDSA"
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in CURVES:
        return CURVES[key.curve.name][0]
    raise ValueError("the private key is neither RSA, P-256, P-384, P-521 nor Ed25519")


def sign(key: Any, data: bytes) -> bytes:
    """The signature as RFC 7518 section 3 has it."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), SHA256())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        size = (key.curve.key_size + 7) // 8
        pair = decode_dss_signature(key.sign(data, ec.ECDSA(CURVES[key.curve.name][1])))
        return b"".join(number.to_bytes(size, "big") for number in pair)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    return key.sign(data)


def encode_part(data: bytes) -> bytes:
    """Base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")
