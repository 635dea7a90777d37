"""Signs id tokens (OpenID Connect Core section 2) with ES256, and publishes the key. No I/O."""

import base64
import hashlib
import json
import time
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from simulator.sign_in.grants import Approval

LIFETIME_SECONDS = 300
#: Bytes of a coordinate, and of either half of a signature (RFC 7518 section 3.4).
P256_BYTES = 32


def encode_segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def describe_account(number: int) -> dict[str, Any]:
    """The claims about an account."""
    return {
        "sub": f"account-{number}",
        "name": f"Simulated Account {number}",
        "email": f"account{number}@simulator.example",
        "email_verified": True,
    }


class IdTokenSigner:
    """Has a key that follows from the seed, so that a restarted simulator has the same."""

    def __init__(self, seed: str) -> None:
        secret = int.from_bytes(hashlib.sha256(f"id tokens of {seed}".encode()).digest()[:31]) + 1
        self._key = ec.derive_private_key(secret, ec.SECP256R1())

    def publish(self) -> dict[str, Any]:
        """The set of public keys (RFC 7517)."""
        numbers = self._key.public_key().public_numbers()
        x, y = (encode_segment(value.to_bytes(P256_BYTES)) for value in (numbers.x, numbers.y))
        return {"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "1", "x": x, "y": y}]}

    def issue(self, issuer: str, approval: Approval) -> str:
        now = int(time.time())
        claims = {"iss": issuer, "aud": approval.client_id, "iat": now, "exp": now + LIFETIME_SECONDS}
        nonce = {"nonce": approval.nonce} if approval.nonce else {}
        return self.sign({**claims, **nonce, **describe_account(approval.account)})

    def sign(self, claims: dict[str, Any]) -> str:
        """A JSON Web Token with these claims."""
        header = {"alg": "ES256", "typ": "JWT", "kid": "1"}
        signed = ".".join(encode_segment(json.dumps(part).encode()) for part in (header, claims))
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{encode_segment(r.to_bytes(P256_BYTES) + s.to_bytes(P256_BYTES))}"
