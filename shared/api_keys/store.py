"""Store of the API keys, which Redis keeps only as SHA-256."""

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from redis import Redis

from shared import clock, keys
from shared.api_keys.api_key import CONSOLE_KEY_ID, ApiKey, validate_fields
from shared.api_keys.superseded import SupersededSecret
from shared.decoding import UnreadableRecord, parse_model
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
        self._rotate_key = register_script(redis, Path(__file__).with_name("rotate_key.lua"))

    def create(self, name: str = "", **fields: Any) -> tuple[str, ApiKey]:
        """Returns the new key, which cannot be read again, and its record. Raises BadField."""
        secret = generate_secret()
        return secret, self._store(secret, {**fields, "name": name})

    def create_if_missing(self, secret: str, name: str) -> ApiKey:
        """Stores a key supplied by the operator, unless it exists. Raises FarmError if no header can carry it."""
        if not secret.isascii() or not secret.isprintable() or " " in secret:
            raise FarmError("an API key must consist of printable ASCII characters without spaces")
        if len(secret) < MIN_SECRET_LENGTH:
            log.warning("%s is so short that it could be guessed", name, extra={"action": "weak_key"})
        return self.find(hash_secret(secret)) or self._store(secret, {"name": name})

    def _store(self, secret: str, fields: Mapping[str, Any]) -> ApiKey:
        values = validate_fields(fields).model_dump()
        key = ApiKey(**values, id=secrets.token_hex(5), hint=hint_at(secret), created_at=clock.now())
        with self._redis.pipeline() as pipe:
            pipe.hset(keys.API_KEYS, hash_secret(secret), key.model_dump_json())
            pipe.hset(keys.API_KEY_IDS, key.id, hash_secret(secret))
            pipe.execute()
        return key

    def find(self, secret_digest: str) -> ApiKey | None:
        """The record of the key with this SHA-256, revoked or not; None if there is none, or it can't be read.

        By a replaced secret the key is found with the time at which that expires.
        """
        stored = self._read(keys.API_KEYS, secret_digest)
        return parse_model(ApiKey, stored) if stored else self._find_superseded(secret_digest)

    def _find_superseded(self, secret_digest: str) -> ApiKey | None:
        """The key whose former secret this is, as that secret opens it."""
        encoded = self._read(keys.SUPERSEDED_API_KEYS, secret_digest)
        if encoded is None:
            return None
        try:
            superseded = SupersededSecret.decode(encoded)
            return superseded.limit(self.get(superseded.id))
        except (NotFound, UnreadableRecord):
            return None

    def _read(self, name: str, field: str) -> bytes | None:
        if self._pipeline:
            return cast("bytes | None", self._pipeline.execute("HGET", name, field))
        return cast("bytes | None", self._redis.hget(name, field))

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

    def rotate(self, key_id: str, grace_seconds: float) -> tuple[str, ApiKey]:
        """Gives a key a new secret, which cannot be read again; the former one is accepted for `grace_seconds` more.

        0 ends all former secrets. Raises NotFound, and Conflict for a revoked key and for the console's own.
        """
        if key_id == CONSOLE_KEY_ID:
            raise Conflict("the console's own key has no secret")
        secret = generate_secret()
        while True:
            digest, key = self._get_with_digest(key_id)
            if key.revoked_at:
                raise Conflict(f"API key {key_id} is revoked, which cannot be undone")
            now = clock.now()
            former = SupersededSecret(key.id, now, now + grace_seconds)
            changes = {
                "hint": hint_at(secret),
                "rotated_at": now,
                "superseded_until": max(former.until, key.superseded_until) if grace_seconds else now,
                "superseded_ended_at": key.superseded_ended_at if grace_seconds else now,
                "version": key.version + 1,
            }
            rotated = key.model_copy(update=changes)
            args = [key.id, digest, key.version, hash_secret(secret), self._encode(digest, rotated), former.encode()]
            if self._rotate_key(keys=[keys.API_KEYS, keys.API_KEY_IDS, keys.SUPERSEDED_API_KEYS], args=args):
                return secret, rotated

    def end_superseded(self, key_id: str) -> ApiKey:
        """Ends all former secrets of a key within a second. Raises NotFound."""
        while True:
            digest, key = self._get_with_digest(key_id)
            now = clock.now()
            changes = {"superseded_until": now, "superseded_ended_at": now, "version": key.version + 1}
            changed = key.model_copy(update=changes)
            if self._replace(digest, changed):
                return changed

    def _replace(self, digest: str, key: ApiKey) -> bool:
        """Returns False if another process has changed the key in the meantime."""
        args = [digest, key.version - 1, self._encode(digest, key)]
        return bool(self._put_record(keys=[keys.API_KEYS], args=args))

    def _encode(self, digest: str, key: ApiKey) -> str:
        """Keeps what a newer version has stored in the record."""
        stored = parse_json_object(self._redis.hget(keys.API_KEYS, digest) or b"")
        return json.dumps({**stored, **key.to_dict()})


def generate_secret() -> str:
    return KEY_PREFIX + secrets.token_urlsafe(32)


def hint_at(secret: str) -> str:
    """The first and last characters."""
    return f"{secret[:6]}…{secret[-4:]}"


def hash_secret(secret: str) -> str:
    """SHA-256; a secret with this much entropy needs no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()
