"""Opens what the vault sealed; only workers and the operator's command line may import it, never `web`."""

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
from shared.credentials.sealing import SUITE, Sealer
from shared.errors import WrongSecretKey
from shared.settings.schema import Settings

KEY_FILE = "secret.key"


class Unsealer:
    """Opens with the private key that the secret key stands for."""

    def __init__(self, secret_key: str) -> None:
        seed = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"farm vault").derive(secret_key.encode())
        self._private_key = X25519PrivateKey.from_private_bytes(seed)
        self.sealer = Sealer(self._private_key.public_key())

    def unseal(self, sealed: bytes, context: str) -> str:
        """The secret. Raises WrongSecretKey when it was sealed for another key or context."""
        try:
            return SUITE.decrypt(sealed, self._private_key, context.encode()).decode()
        except (InvalidTag, ValueError):
            raise WrongSecretKey("the secret key does not open this credential") from None

    def claim(self, redis: Redis) -> None:
        """Makes this key the farm's, if it has none. Raises WrongSecretKey when it has another."""
        mine = base64.b64encode(self._private_key.public_key().public_bytes_raw())
        redis.set(keys.SEALING_KEY, mine, nx=True)
        if redis.get(keys.SEALING_KEY) != mine:
            raise WrongSecretKey(
                "FARM_SECRET_KEY (or secret.key in the data dir) is not the key that this farm's credentials "
                "were encrypted with; give the right one, nothing was changed"
            )


def load_unsealer(settings: Settings) -> Unsealer:
    """The opener by FARM_SECRET_KEY, else by the key in the data dir, which is made when missing."""
    return Unsealer(settings.secret_key or read_or_create_key(Path(settings.data_dir)))


def read_or_create_key(data_dir: Path) -> str:
    """The data dir's secret key; written whole, once, readable by its owner only."""
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
