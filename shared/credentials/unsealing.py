"""Unseals secrets; only the workers and the launcher may import it, never `web`."""

import base64
import contextlib
import logging
import secrets
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from redis import Redis

from shared import keys
from shared.credentials.sealing import HPKE_SUITE, Sealer, build_header
from shared.errors import WrongSecretKey
from shared.settings.schema import Settings

log = logging.getLogger("farm.tokens")
KEY_FILE = "secret.key"
#: Characters below which a secret key may have been thought up, so that it can be guessed.
MIN_KEY_LENGTH = 32
#: Cost of scrypt (RFC 7914): 64 MB and about 0.2 s for each guess.
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**16, 8, 1
SHORT_KEY_ADVICE = (
    "FARM_SECRET_KEY has fewer than %d characters, so a stolen copy of Redis could be opened by guessing; "
    "stop the farm and run `./farm rekey`, which makes a strong key and seals everything again"
)


class Unsealer:
    """Unseals with the private key derived from the secret key.

    A short key is stretched with scrypt; older farms did not, and keep their derivation until `./farm rekey`.
    """

    def __init__(self, secret_key: str) -> None:
        self._is_short = len(secret_key) < MIN_KEY_LENGTH
        self._private_keys = [derive_stretched(secret_key)] if self._is_short else []
        self._private_keys.append(derive(secret_key))
        self.sealer = Sealer(self._private_keys[0].public_key())

    @property
    def public_keys(self) -> list[bytes]:
        """Its public keys as `farm:vault` holds them: the one of a new farm first."""
        return [encode_public_key(private_key) for private_key in self._private_keys]

    def unseal(self, sealed: bytes, context: str) -> str:
        """Raises WrongSecretKey if the secret was sealed for another key or context."""
        for private_key in self._private_keys:
            header = build_header(private_key.public_key())
            # A value without a header may begin like one by chance.
            for message in (sealed.removeprefix(header), sealed) if sealed.startswith(header) else (sealed,):
                with contextlib.suppress(InvalidTag, ValueError):
                    return HPKE_SUITE.decrypt(message, private_key, context.encode()).decode()
        raise WrongSecretKey("the secret key cannot unseal this credential")

    def ensure_sealing_key(self, redis: Redis) -> None:
        """Stores the public key if the farm has none yet. Raises WrongSecretKey if the farm has another."""
        redis.set(keys.SEALING_KEY, self.public_keys[0], nx=True)
        stored, next_key = redis.mget(keys.SEALING_KEY, keys.NEXT_SEALING_KEY)
        if next_key:
            raise WrongSecretKey(
                "`./farm rekey` was interrupted: run it again with the same arguments; nothing is lost"
            )
        if stored not in self.public_keys:
            raise WrongSecretKey(
                "FARM_SECRET_KEY (or secret.key in the data dir) is not the key that this farm's credentials "
                "were sealed with; provide the right key; nothing was changed"
            )
        private_key = self._private_keys[self.public_keys.index(stored)]
        self.sealer = Sealer(private_key.public_key(), has_header=self.sealer.has_header)

    def warn_of_short_key(self) -> None:
        if self._is_short:
            log.warning(SHORT_KEY_ADVICE, MIN_KEY_LENGTH, extra={"action": "weak_key"})


@lru_cache(maxsize=8)
def derive(secret_key: str) -> X25519PrivateKey:
    seed = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"farm vault").derive(secret_key.encode())
    return X25519PrivateKey.from_private_bytes(seed)


@lru_cache(maxsize=8)
def derive_stretched(secret_key: str) -> X25519PrivateKey:
    """The key of a short secret key, expensive to guess. Cached, because deriving it takes long."""
    scrypt = Scrypt(salt=b"farm vault", length=32, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P)
    return X25519PrivateKey.from_private_bytes(scrypt.derive(secret_key.encode()))


def encode_public_key(private_key: X25519PrivateKey) -> bytes:
    return base64.b64encode(private_key.public_key().public_bytes_raw())


def load_unsealer(settings: Settings) -> Unsealer:
    """Uses FARM_SECRET_KEY, or else the key in the data dir, which is created if missing."""
    return Unsealer(settings.secret_key or read_or_create_key(Path(settings.data_dir)))


def read_or_create_key(data_dir: Path) -> str:
    """The data dir's secret key, created atomically on first use and readable only by its owner."""
    data_dir.mkdir(parents=True, exist_ok=True)
    file = data_dir / KEY_FILE
    if not file.exists():
        draft = data_dir / f"{KEY_FILE}.{secrets.token_hex(4)}"
        draft.touch(mode=0o600, exist_ok=False)
        draft.write_text(secrets.token_urlsafe(32) + "\n")
        with contextlib.suppress(FileExistsError):
            file.hardlink_to(draft)
        draft.unlink()
    return file.read_text().strip()
