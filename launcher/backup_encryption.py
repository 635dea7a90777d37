"""Encrypts backups with a passphrase: scrypt (RFC 7914) and ChaCha20-Poly1305 (RFC 8439). No I/O.

A backup is MAGIC, salt, nonce, ciphertext; everything before the ciphertext is authenticated with it.
"""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from shared.errors import FarmError

#: First bytes of a backup; the digit is the version of the format.
MAGIC = b"token-farm backup 1\n"
SALT_BYTES, NONCE_BYTES = 16, 12
#: One guess at the passphrase costs 128 MB and half a second.
SCRYPT_COSTS = {"n": 2**17, "r": 8, "p": 1}
MIN_PASSPHRASE_LENGTH = 8


def check_passphrase(passphrase: str) -> None:
    """Raises FarmError when the passphrase is too short."""
    if len(passphrase) < MIN_PASSPHRASE_LENGTH:
        raise FarmError(f"the passphrase must have at least {MIN_PASSPHRASE_LENGTH} characters")


def encrypt(content: bytes, passphrase: str) -> bytes:
    """Returns the backup. Raises FarmError when the passphrase is too short."""
    check_passphrase(passphrase)
    salt, nonce = os.urandom(SALT_BYTES), os.urandom(NONCE_BYTES)
    head = MAGIC + salt + nonce
    return head + ChaCha20Poly1305(derive_key(passphrase, salt)).encrypt(nonce, content, head)


def decrypt(backup: bytes, passphrase: str) -> bytes:
    """Returns the content. Raises FarmError for anything but an unchanged backup and its passphrase."""
    if not backup.startswith(MAGIC):
        raise FarmError("this is not a backup of a farm, or it is of another version")
    salt_end = len(MAGIC) + SALT_BYTES
    head_end = salt_end + NONCE_BYTES
    salt, nonce = backup[len(MAGIC) : salt_end], backup[salt_end:head_end]
    try:
        key = derive_key(passphrase, salt)
        return ChaCha20Poly1305(key).decrypt(nonce, backup[head_end:], backup[:head_end])
    except (InvalidTag, ValueError):
        raise FarmError("the passphrase is wrong, or the backup was modified") from None


def derive_key(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, **SCRYPT_COSTS).derive(passphrase.encode())
