"""The store of API keys: a key is shown once and kept as its SHA-256; it knows nothing of HTTP."""

import hashlib
import json
import logging
import secrets
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from redis import Redis

from shared import keys
from shared.errors import FarmError, NotFound

log = logging.getLogger("farm.keys")
#: How every key of the farm begins, as callers expect of an OpenAI-compatible endpoint.
PREFIX = "sk-"
#: Characters below which a key that an operator brings along can be guessed.
GUESSABLE = 16


@dataclass(frozen=True)
class ApiKey:
    """What is kept of an API key. Times are seconds since the epoch, 0 for never."""

    id: str
    name: str
    #: First and last characters, to recognise it by.
    hint: str
    created_at: float
    revoked_at: float = 0

    @property
    def enabled(self) -> bool:
        """Whether requests may use it."""
        return not self.revoked_at

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "enabled": self.enabled}


class ApiKeys:
    """The API keys of the farm."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def create(self, name: str) -> tuple[str, ApiKey]:
        """Makes a key; returns it, for the only time, with its record."""
        secret = PREFIX + secrets.token_urlsafe(32)
        return secret, self._store(secret, name)

    def ensure(self, secret: str, name: str) -> ApiKey:
        """Makes the given key valid, if it is not known yet. Raises FarmError when no client could send it."""
        if not secret.isascii() or not secret.isprintable() or " " in secret:
            raise FarmError("an API key takes printable ASCII characters without spaces")
        if len(secret) < GUESSABLE:
            log.warning("%s is short enough to be guessed", name, extra={"action": "weak_key"})
        return self.find(digest(secret)) or self._store(secret, name)

    def _store(self, secret: str, name: str) -> ApiKey:
        hint = f"{secret[:6]}…{secret[-4:]}"
        key = ApiKey(secrets.token_hex(5), name, hint, time.time())
        self._redis.hset(keys.API_KEYS, digest(secret), json.dumps(asdict(key)))
        return key

    def find(self, secret_digest: str) -> ApiKey | None:
        """The record of the key with that digest, revoked or not; None when it is unknown."""
        stored = self._redis.hget(keys.API_KEYS, secret_digest)
        return ApiKey(**json.loads(stored)) if stored else None

    def list(self) -> list[ApiKey]:
        """Every key, oldest first."""
        found = [ApiKey(**json.loads(value)) for value in self._redis.hvals(keys.API_KEYS)]
        return sorted(found, key=lambda key: (key.created_at, key.id))

    def revoke(self, key_id: str) -> ApiKey:
        """Ends a key for good. Raises NotFound."""
        for field, value in self._redis.hgetall(keys.API_KEYS).items():
            key = ApiKey(**json.loads(value))
            if key.id == key_id:
                revoked = replace(key, revoked_at=key.revoked_at or time.time())
                self._redis.hset(keys.API_KEYS, field, json.dumps(asdict(revoked)))
                return revoked
        raise NotFound(f"no API key {key_id!r}")


def digest(secret: str) -> str:
    """SHA-256, enough for a secret of 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()
