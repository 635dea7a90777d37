"""The store of API keys: a key is shown once and kept as its SHA-256; it knows nothing of HTTP."""

import hashlib
import logging
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redis import Redis

from shared import keys
from shared.api_keys.api_key import ApiKey, validate_fields
from shared.errors import Conflict, FarmError, NotFound
from shared.redis_connection.client import register_script

log = logging.getLogger("farm.keys")
#: How every key of the farm begins, as callers expect of an OpenAI-compatible endpoint.
PREFIX = "sk-"
#: Characters below which a key that an operator brings along can be guessed.
MIN_SECRET_LENGTH = 16


class ApiKeys:
    """The API keys of the farm."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._put = register_script(redis, Path(__file__).with_name("put_record.lua"))

    def create(self, name: str = "", **fields: Any) -> tuple[str, ApiKey]:
        """Makes a key; returns it, for the only time, with its record. Raises BadField."""
        secret = PREFIX + secrets.token_urlsafe(32)
        return secret, self._store(secret, {**fields, "name": name})

    def ensure(self, secret: str, name: str) -> ApiKey:
        """Makes the given key valid, if it is not known yet. Raises FarmError when no client could send it."""
        if not secret.isascii() or not secret.isprintable() or " " in secret:
            raise FarmError("an API key takes printable ASCII characters without spaces")
        if len(secret) < MIN_SECRET_LENGTH:
            log.warning("%s is short enough to be guessed", name, extra={"action": "weak_key"})
        return self.find(hash_secret(secret)) or self._store(secret, {"name": name})

    def _store(self, secret: str, fields: Mapping[str, Any]) -> ApiKey:
        hint = f"{secret[:6]}…{secret[-4:]}"
        key = ApiKey(**validate_fields(fields).model_dump(), id=secrets.token_hex(5), hint=hint, created_at=time.time())
        with self._redis.pipeline() as pipe:
            pipe.hset(keys.API_KEYS, hash_secret(secret), key.model_dump_json())
            pipe.hset(keys.API_KEY_IDS, key.id, hash_secret(secret))
            pipe.execute()
        return key

    def find(self, secret_digest: str) -> ApiKey | None:
        """The record of the key with that digest, revoked or not; None when it is unknown."""
        stored = self._redis.hget(keys.API_KEYS, secret_digest)
        return ApiKey.model_validate_json(stored) if stored else None

    def get(self, key_id: str) -> ApiKey:
        """A key by its id. Raises NotFound."""
        return self._locate(key_id)[1]

    def _locate(self, key_id: str) -> tuple[str, ApiKey]:
        place = self._redis.hget(keys.API_KEY_IDS, key_id)
        found = self.find(place.decode()) if place else None
        if place is None or found is None:
            raise NotFound(f"no API key {key_id!r}")
        return place.decode(), found

    def list(self) -> list[ApiKey]:
        """Every key, oldest first."""
        found = [ApiKey.model_validate_json(value) for value in self._redis.hvals(keys.API_KEYS)]
        return sorted(found, key=lambda key: (key.created_at, key.id))

    def update(self, key_id: str, changes: Mapping[str, Any], version: int | None = None) -> ApiKey:
        """Changes fields of a key; every process knows within two seconds.

        Raises NotFound, BadField, and Conflict when the key is not of that version, or has been revoked.
        """
        while True:
            place, key = self._locate(key_id)
            if version is not None and version != key.version:
                raise Conflict(f"API key {key_id} is of version {key.version} by now")
            if key.revoked_at:
                raise Conflict(f"API key {key_id} was revoked, for good")
            fields = validate_fields({**key.settable_fields(), **changes}).model_dump()
            changed = key.model_copy(update={**fields, "version": key.version + 1})
            if self._replace(place, changed):
                return changed

    def revoke(self, key_id: str) -> ApiKey:
        """Ends a key for good. Raises NotFound."""
        while True:
            place, key = self._locate(key_id)
            if key.revoked_at:
                return key
            ended = {"enabled": False, "revoked_at": time.time(), "version": key.version + 1}
            revoked = key.model_copy(update=ended)
            if self._replace(place, revoked):
                return revoked

    def _replace(self, place: str, key: ApiKey) -> bool:
        """False when somebody else was quicker."""
        return bool(self._put(keys=[keys.API_KEYS], args=[place, key.version - 1, key.model_dump_json()]))


def hash_secret(secret: str) -> str:
    """SHA-256, enough for a secret of 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()
