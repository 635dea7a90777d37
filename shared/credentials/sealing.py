"""Seals secrets with the farm's public key.

The front can store a token but never read one back: only shared/credentials/unsealing.py has the private key, and `web`
may not import it. The scheme is HPKE (RFC 9180) with X25519, HKDF-SHA256 and ChaCha20-Poly1305.

A sealed value is a version byte, the id of the key, and the HPKE message. Values of farms before that have only the
message; they are still read, and written while a worker process of such a farm is alive.
"""

import base64
import hashlib

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from redis import Redis

from shared import keys
from shared.errors import FarmError

HPKE_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
#: First byte of a sealed value: this format with the suite above.
VERSION_BYTE = b"\x01"
#: Bytes of a key's id.
KEY_ID_BYTES = 4
#: What a worker process reports as `sealing` when it reads values with a version byte.
SEALING_VERSION = 1


class Sealer:
    """Seals secrets with a public key."""

    def __init__(self, public_key: X25519PublicKey, *, has_header: bool = True) -> None:
        """`has_header`: whether sealed values get version byte and key id, which older farms do not read."""
        self._public_key = public_key
        self.has_header = has_header

    def seal(self, secret: str, context: str) -> bytes:
        """Seals a secret; unsealing needs the same context (a credential's id)."""
        sealed = HPKE_SUITE.encrypt(secret.encode(), self._public_key, context.encode())
        return build_header(self._public_key) + sealed if self.has_header else sealed

    @classmethod
    def load(cls, redis: Redis) -> "Sealer":
        """Loads the public key. Raises FarmError until a process with the secret key has stored it."""
        stored = redis.get(keys.SEALING_KEY)
        if stored is None:
            raise FarmError("this farm has no sealing key yet: start the farm or a worker process once")
        public_key = X25519PublicKey.from_public_bytes(base64.b64decode(stored))
        return cls(public_key, has_header=not has_older_process(redis))


def build_header(public_key: X25519PublicKey) -> bytes:
    """What precedes the HPKE message of a value that is sealed with that key."""
    return VERSION_BYTE + hashlib.sha256(public_key.public_bytes_raw()).digest()[:KEY_ID_BYTES]


def has_older_process(redis: Redis) -> bool:
    """Whether a worker process is alive that can't read values with a version byte."""
    processes = redis.zrange(keys.PROCESSES, 0, -1)
    if not processes:
        return False
    with redis.pipeline(transaction=False) as pipe:
        for process in processes:
            pipe.hmget(keys.process(process.decode()), "capacity", "sealing")
        return any(capacity and not sealing for capacity, sealing in pipe.execute())


def fingerprint(token: str) -> str:
    """SHA-256 of a token; identifies it without revealing it, given its high entropy."""
    return hashlib.sha256(token.encode()).hexdigest()
