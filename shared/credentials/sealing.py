"""Seals secrets with the farm's public key, so that the front can store a token and never read one back.

HPKE (RFC 9180): X25519, HKDF-SHA256, ChaCha20-Poly1305. shared/credentials/unsealing.py opens what is sealed, and `web`
may not import it.
"""

import base64
import hashlib

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from redis import Redis

from shared import keys
from shared.errors import FarmError

SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


class Sealer:
    """Seals with a public key."""

    def __init__(self, public_key: X25519PublicKey) -> None:
        self._public_key = public_key

    def seal(self, secret: str, context: str) -> bytes:
        """The secret, sealed for one context (a credential's id); it opens in no other."""
        return SUITE.encrypt(secret.encode(), self._public_key, context.encode())

    @classmethod
    def load(cls, redis: Redis) -> "Sealer":
        """The sealer of this farm. Raises FarmError before any process with the secret key has started once."""
        stored = redis.get(keys.SEALING_KEY)
        if stored is None:
            raise FarmError("this farm has no vault yet: start it, or a worker process, once")
        return cls(X25519PublicKey.from_public_bytes(base64.b64decode(stored)))


def fingerprint(token: str) -> str:
    """SHA-256 of a token with high entropy: tells two apart and gives none away."""
    return hashlib.sha256(token.encode()).hexdigest()
