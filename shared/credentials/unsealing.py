"""Unseals secrets; only the workers and the launcher may import it, never `web`."""

import base64
import contextlib
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from redis import Redis

from shared import keys
from shared.credentials.sealing import HPKE_SUITE, Sealer
from shared.errors import WrongSecretKey
from shared.settings.schema import Settings

KEY_FILE = "secret.key"


class Unsealer:
    """Unseals with the private key derived from the secret key."""

    def __init__(self, secret_key: str) -> None:
        seed = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"farm vault").derive(secret_key.encode())
        self._private_key = X25519PrivateKey.from_private_bytes(seed)
        self.sealer = Sealer(self._private_key.public_key())

    def unseal(self, sealed: bytes, context: str) -> str:
        """Raises WrongSecretKey if the secret was sealed for another key or context."""
        try:
            return HPKE_SUITE.decrypt(sealed, self._private_key, context.encode()).decode()
        except (InvalidTag, ValueError):
            raise WrongSecretKey("the secret key cannot unseal this credential") from None

    def ensure_sealing_key(self, redis: Redis) -> None:
        """Stores the public key if the farm has none yet. Raises WrongSecretKey if the farm has another."""
        public_key = base64.b64encode(self._private_key.public_key().public_bytes_raw())
        redis.set(keys.SEALING_KEY, public_key, nx=True)
        if redis.get(keys.SEALING_KEY) != public_key:
            raise WrongSecretKey(
                "FARM_SECRET_KEY (or secret.key in the data dir) is not the key that this farm's credentials "
                "were sealed with; provide the right key; nothing was changed"
            )


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
