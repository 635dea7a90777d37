"""Seals secrets with the farm's public key.

The front can store a token but never read one back: only shared/credentials/unsealing.py has the private key, and `web`
may not import it. The scheme is HPKE (RFC 9180) with X25519, HKDF-SHA256 and ChaCha20-Poly1305.
"""

import base64
import hashlib

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from redis import Redis

from shared import keys
from shared.errors import FarmError

HPKE_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


class Sealer:
    """Seals secrets with a public key."""

    def __init__(self, public_key: X25519PublicKey) -> None:
        self._public_key = public_key

    def seal(self, secret: str, context: str) -> bytes:
        """Seals a secret; unsealing needs the same context (a credential's id)."""
        return HPKE_SUITE.encrypt(secret.encode(), self._public_key, context.encode())

    @classmethod
    def load(cls, redis: Redis) -> "Sealer":
        """Loads the public key. Raises FarmError until a process with the secret key has stored it."""
        stored = redis.get(keys.SEALING_KEY)
        if stored is None:
            raise FarmError("this farm has no sealing key yet: start the farm or a worker process once")
        return cls(X25519PublicKey.from_public_bytes(base64.b64decode(stored)))


def fingerprint(token: str) -> str:
    """SHA-256 of a token; identifies it without revealing it, given its high entropy."""
    return hashlib.sha256(token.encode()).hexdigest()
