"""Store of the admin tokens, which Redis keeps only as SHA-256.

There is no default token: the first start creates one, unless FARM_ADMIN_TOKEN sets it. A token's sessions end when it
is revoked or replaced.
"""

import logging
import secrets
import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from redis import Redis

from shared import keys
from shared.api_keys.admin_sessions import AdminSessions
from shared.api_keys.store import hash_secret
from shared.decoding import parse_model
from shared.errors import Conflict, NotFound
from shared.redis_connection.client import register_script

log = logging.getLogger("farm.admin")
Role = Literal["admin", "viewer"]
PREFIX = "admin-"
#: Id of the token from FARM_ADMIN_TOKEN or from the first start.
FIRST_TOKEN_ID = "first"  # noqa: S105 (an id)
#: Minimum length of a token of which six characters may be shown.
MIN_HINTED_LENGTH = 24
#: Characters below which a token chosen by a person could be guessed, if slowly.
MIN_STRONG_LENGTH = 16


class AdminToken(BaseModel):
    """Record of an admin token. Times are seconds since the epoch."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    #: A viewer may read everything and change nothing.
    role: Role
    #: First and last characters of the token, for recognition.
    hint: str
    created_at: float


class AdminTokens:
    """Store of the admin tokens."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._sessions = AdminSessions(redis)
        self._revoke_script = register_script(redis, Path(__file__).with_name("revoke_admin_token.lua"))

    def ensure_first(self, configured: str) -> str | None:
        """Makes sure that the farm has an admin token: `configured` if given, or else a new one on the first start.

        A changed `configured` replaces the one before, whose sessions end. Returns the new token, which cannot be read
        again; None when none was created.
        """
        self._redis.delete(keys.OBSOLETE_SESSION_SECRET)
        if configured:
            self.store_configured(configured)
            return None
        if not self._redis.set(keys.ADMIN_TOKENS_INITIALIZED, 1, nx=True) or self.list():
            return None
        token = PREFIX + secrets.token_urlsafe(24)
        self._store(token, FIRST_TOKEN_ID, "made on the first start", "admin")
        return token

    def store_configured(self, configured: str) -> bool:
        """Stores FARM_ADMIN_TOKEN in place of the one before, whose sessions end; returns whether there was one."""
        record = self.find(configured)
        if record is None or (record.id, record.role) != (FIRST_TOKEN_ID, "admin"):
            self._store(configured, FIRST_TOKEN_ID, "FARM_ADMIN_TOKEN", "admin")
        return self._delete(FIRST_TOKEN_ID, except_digest=hash_secret(configured)) > 0

    def create(self, name: str, role: Role) -> tuple[str, AdminToken]:
        """Returns the new token, which cannot be read again, and its record."""
        token = PREFIX + secrets.token_urlsafe(24)
        return token, self._store(token, secrets.token_hex(5), name, role)

    def restore(self, digest: str, encoded: str) -> bool:
        """Adds a token of another farm, under a new id if its own is taken; returns whether it was missing."""
        record = parse_model(AdminToken, encoded)
        if record and any(record.id == other.id for other in self.list()):
            encoded = record.model_copy(update={"id": secrets.token_hex(5)}).model_dump_json()
        return bool(self._redis.hsetnx(keys.ADMIN_TOKENS, digest, encoded))

    def _store(self, token: str, token_id: str, name: str, role: Role) -> AdminToken:
        hint = f"{token[:3]}…{token[-3:]}" if len(token) >= MIN_HINTED_LENGTH else "…"
        record = AdminToken(id=token_id, name=name, role=role, hint=hint, created_at=time.time())
        self._redis.hset(keys.ADMIN_TOKENS, hash_secret(token), record.model_dump_json())
        return record

    def find(self, token: str) -> AdminToken | None:
        """The token's record; None if the token is wrong."""
        return self.find_by_digest(hash_secret(token)) if token else None

    def find_by_digest(self, digest: str) -> AdminToken | None:
        """The record of the token with this SHA-256; None if there is none, or it can't be read."""
        stored = self._redis.hget(keys.ADMIN_TOKENS, digest)
        return parse_model(AdminToken, stored) if stored else None

    def get(self, token_id: str) -> AdminToken:
        """Raises NotFound."""
        for record in self.list():
            if record.id == token_id:
                return record
        raise NotFound(f"no admin token {token_id!r}")

    def list(self) -> list[AdminToken]:
        """All records that can be read, oldest first."""
        return sorted(self._read_all().values(), key=lambda record: (record.created_at, record.id))

    def _read_all(self) -> dict[bytes, AdminToken]:
        """SHA-256 -> record."""
        stored = self._redis.hgetall(keys.ADMIN_TOKENS)
        records = {digest: parse_model(AdminToken, encoded) for digest, encoded in stored.items()}
        return {digest: record for digest, record in records.items() if record}

    def revoke(self, token_id: str) -> AdminToken:
        """Revokes a token and ends its sessions. Raises NotFound, and Conflict for the last token of role `admin`."""
        for digest, record in self._read_all().items():
            if record.id == token_id:
                if self._revoke_script(keys=[keys.ADMIN_TOKENS], args=[digest]) == 0:
                    raise Conflict("this is the last admin token: create another one first")
                self._sessions.end_of_token(digest.decode())
                return record
        raise NotFound(f"no admin token {token_id!r}")

    def _delete(self, token_id: str, except_digest: str = "") -> int:
        """Deletes the tokens with this id and ends their sessions; returns how many were left to delete."""
        count = 0
        for encoded_digest, record in self._read_all().items():
            digest = encoded_digest.decode()
            if digest != except_digest and record.id == token_id:
                count += self._redis.hdel(keys.ADMIN_TOKENS, digest)
                self._sessions.end_of_token(digest)
        return count


def warn_if_weak(configured: str) -> None:
    """Logs a warning if FARM_ADMIN_TOKEN is short."""
    if 0 < len(configured) < MIN_STRONG_LENGTH:
        message = f"FARM_ADMIN_TOKEN could be guessed: use {MIN_STRONG_LENGTH} characters or more"
        log.warning(message, extra={"action": "weak_admin_token"})
