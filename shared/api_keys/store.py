"""Store of the API keys, which Redis keeps only as SHA-256."""

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redis import Redis

from shared import clock, keys
from shared.api_keys.api_key import CONSOLE_KEY_ID, ApiKey, validate_fields
from shared.decoding import parse_model
from shared.errors import Conflict, FarmError, NotFound
from shared.parsing import parse_json_object
from shared.redis_connection.auto_pipeline import AutoPipeline
from shared.redis_connection.client import register_script

log = logging.getLogger("farm.keys")
#: Prefix of generated keys, as usual for OpenAI-compatible endpoints.
KEY_PREFIX = "sk-"
#: Characters below which a key supplied by the operator could be guessed.
MIN_SECRET_LENGTH = 16
#: Records parsed at a time, which takes some milliseconds.
KEYS_PER_SLICE = 200


class ApiKeys:
    """Store of the API keys."""

    def __init__(self, redis: Redis, pipeline: AutoPipeline | None = None) -> None:
        """With a `pipeline`, any number of lookups at once share its connection."""
        self._redis = redis
        self._pipeline = pipeline
        self._put_record = register_script(redis, Path(__file__).with_name("put_record.lua"))

    def create(self, name: str = "", **fields: Any) -> tuple[str, ApiKey]:
        """Returns the new key, which cannot be read again, and its record. Raises BadField."""
        secret = KEY_PREFIX + secrets.token_urlsafe(32)
        return secret, self._store(secret, {**fields, "name": name})

    def create_if_missing(self, secret: str, name: str) -> ApiKey:
        """Stores a key supplied by the operator, unless it exists. Raises FarmError if no header can carry it."""
        if not secret.isascii() or not secret.isprintable() or " " in secret:
            raise FarmError("an API key must consist of printable ASCII characters without spaces")
        if len(secret) < MIN_SECRET_LENGTH:
            log.warning("%s is so short that it could be guessed", name, extra={"action": "weak_key"})
        return self.find(hash_secret(secret)) or self._store(secret, {"name": name})

    def _store(self, secret: str, fields: Mapping[str, Any]) -> ApiKey:
        hint = f"{secret[:6]}…{secret[-4:]}"
        key = ApiKey(**validate_fields(fields).model_dump(), id=secrets.token_hex(5), hint=hint, created_at=clock.now())
        with self._redis.pipeline() as pipe:
            pipe.hset(keys.API_KEYS, hash_secret(secret), key.model_dump_json())
            pipe.hset(keys.API_KEY_IDS, key.id, hash_secret(secret))
            pipe.execute()
        return key

    def find(self, secret_digest: str) -> ApiKey | None:
        """The record of the key with this SHA-256, revoked or not; None if there is none, or it can't be read."""
        if self._pipeline:
            stored = self._pipeline.execute("HGET", keys.API_KEYS, secret_digest)
        else:
            stored = self._redis.hget(keys.API_KEYS, secret_digest)
        return parse_model(ApiKey, stored) if stored else None

    def get(self, key_id: str) -> ApiKey:
        """Raises NotFound."""
        return self._get_with_digest(key_id)[1]

    def _get_with_digest(self, key_id: str) -> tuple[str, ApiKey]:
        digest = self._redis.hget(keys.API_KEY_IDS, key_id)
        key = self.find(digest.decode()) if digest else None
        if digest is None or key is None:
            raise NotFound(f"no API key {key_id!r}")
        return digest.decode(), key

    def list(self) -> list[ApiKey]:
        """All keys that can be read, oldest first. Lets other greenlets run in between: there may be thousands."""
        stored, records = self._redis.hvals(keys.API_KEYS), list[ApiKey]()
        for start in range(0, len(stored), KEYS_PER_SLICE):
            records += filter(None, (parse_model(ApiKey, each) for each in stored[start : start + KEYS_PER_SLICE]))
            time.sleep(0)
        return sorted(records, key=lambda key: (key.created_at, key.id))

    def update(self, key_id: str, changes: Mapping[str, Any], version: int | None = None) -> ApiKey:
        """Changes fields of a key; takes effect in all processes within two seconds.

        Retries when another process changes the key at the same time. Raises NotFound, BadField, and Conflict when the
        key is revoked or its version is not `version` (None accepts any version).
        """
        while True:
            digest, key = self._get_with_digest(key_id)
            if version is not None and version != key.version:
                raise Conflict(f"API key {key_id} now has version {key.version}")
            if key.revoked_at:
                raise Conflict(f"API key {key_id} is revoked, which cannot be undone")
            fields = validate_fields({**key.settable_fields(), **changes}).model_dump()
            changed = key.model_copy(update={**fields, "version": key.version + 1})
            if self._replace(digest, changed):
                return changed

    def revoke(self, key_id: str) -> ApiKey:
        """Revokes a key permanently; idempotent. Raises NotFound, and Conflict for the console's own key."""
        if key_id == CONSOLE_KEY_ID:
            raise Conflict("the console's own key can't be revoked: disable it")
        while True:
            digest, key = self._get_with_digest(key_id)
            if key.revoked_at:
                return key
            changes = {"enabled": False, "revoked_at": clock.now(), "version": key.version + 1}
            revoked = key.model_copy(update=changes)
            if self._replace(digest, revoked):
                return revoked

    def _replace(self, digest: str, key: ApiKey) -> bool:
        """Returns False if another process has changed the key in the meantime. Keeps fields of a newer version."""
        stored = parse_json_object(self._redis.hget(keys.API_KEYS, digest) or b"")
        record = json.dumps({**stored, **key.to_dict()})
        return bool(self._put_record(keys=[keys.API_KEYS], args=[digest, key.version - 1, record]))


def hash_secret(secret: str) -> str:
    """SHA-256; a secret with this much entropy needs no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()
