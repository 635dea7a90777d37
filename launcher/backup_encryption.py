"""Encrypts a backup with a passphrase: scrypt (RFC 7914) makes the key, ChaCha20-Poly1305 (RFC 8439) seals; pure."""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from shared.errors import FarmError

#: What a backup begins with; the last sign is the version of its shape.
MAGIC = b"token-farm backup 1\n"
SALT_BYTES, NONCE_BYTES = 16, 12
#: scrypt's costs: 128 MB and half a second for each guess at the passphrase.
SCRYPT_COSTS = {"n": 2**17, "r": 8, "p": 1}
#: Shortest passphrase taken.
MIN_PASSPHRASE_LENGTH = 8


def encrypt(content: bytes, passphrase: str) -> bytes:
    """The content, sealed. Raises FarmError for a passphrase that is too short."""
    if len(passphrase) < MIN_PASSPHRASE_LENGTH:
        raise FarmError(f"the passphrase must have {MIN_PASSPHRASE_LENGTH} characters at least")
    salt, nonce = os.urandom(SALT_BYTES), os.urandom(NONCE_BYTES)
    head = MAGIC + salt + nonce
    return head + ChaCha20Poly1305(derive_key(passphrase, salt)).encrypt(nonce, content, head)


def decrypt(sealed: bytes, passphrase: str) -> bytes:
    """The content. Raises FarmError when it is no backup, was changed, or the passphrase is wrong."""
    at = len(MAGIC)
    if not sealed.startswith(MAGIC):
        raise FarmError("that is no backup of a farm, or one of another version")
    salt, nonce, rest = (
        sealed[at : at + SALT_BYTES],
        sealed[at + SALT_BYTES : at + SALT_BYTES + NONCE_BYTES],
        sealed[at + SALT_BYTES + NONCE_BYTES :],
    )
    try:
        return ChaCha20Poly1305(derive_key(passphrase, salt)).decrypt(
            nonce, rest, sealed[: at + SALT_BYTES + NONCE_BYTES]
        )
    except (InvalidTag, ValueError):
        raise FarmError("the passphrase is wrong, or the backup was changed") from None


def derive_key(passphrase: str, salt: bytes) -> bytes:
    """The key that the passphrase stands for."""
    return Scrypt(salt=salt, length=32, **SCRYPT_COSTS).derive(passphrase.encode())
