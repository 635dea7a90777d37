"""The admin tokens: kept as their SHA-256, the first made on the first start, never a default; it knows no HTTP.

Sessions of the console are signed with a secret of their own and name the token that opened them: they end with it.
"""

import secrets
import time
from typing import Literal

from pydantic import BaseModel, ConfigDict
from redis import Redis

from shared import keys
from shared.api_keys.store import hash_secret
from shared.errors import Conflict, NotFound

Role = Literal["admin", "viewer"]
PREFIX = "admin-"
#: The token that FARM_ADMIN_TOKEN sets, or that the first start has made.
FIRST_TOKEN_ID = "first"  # noqa: S105 (an id)


class AdminToken(BaseModel):
    """What is kept of an admin token. Times are seconds since the epoch."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    #: A viewer may look at everything and change nothing.
    role: Role
    #: First and last characters, to recognise it by.
    hint: str
    created_at: float


class AdminTokens:
    """The admin tokens of the farm."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def ensure_first(self, given: str) -> str | None:
        """Makes sure the farm has an admin token: the given one, those it has, or a new one.

        Returns the new token, for the only time; None when nothing had to be made.
        """
        if given:
            if self.find(given) is None:
                self._forget(FIRST_TOKEN_ID)
                self._store(given, FIRST_TOKEN_ID, "FARM_ADMIN_TOKEN", "admin")
            return None
        if not self._redis.set(keys.ADMIN_TOKENS_MADE, 1, nx=True) or self.list():
            return None
        token = PREFIX + secrets.token_urlsafe(24)
        self._store(token, FIRST_TOKEN_ID, "made on the first start", "admin")
        return token

    def create(self, name: str, role: Role) -> tuple[str, AdminToken]:
        """Makes a token; returns it, for the only time, with its record."""
        token = PREFIX + secrets.token_urlsafe(24)
        return token, self._store(token, secrets.token_hex(5), name, role)

    def _store(self, token: str, token_id: str, name: str, role: Role) -> AdminToken:
        hint = f"{token[:3]}…{token[-3:]}" if len(token) > 2 * len(PREFIX) else "…"
        made = AdminToken(id=token_id, name=name, role=role, hint=hint, created_at=time.time())
        self._redis.hset(keys.ADMIN_TOKENS, hash_secret(token), made.model_dump_json())
        return made

    def find(self, presented: str) -> AdminToken | None:
        """The record of a token; None when it is wrong."""
        stored = self._redis.hget(keys.ADMIN_TOKENS, hash_secret(presented)) if presented else None
        return AdminToken.model_validate_json(stored) if stored else None

    def get(self, token_id: str) -> AdminToken:
        """A token by its id. Raises NotFound."""
        for found in self.list():
            if found.id == token_id:
                return found
        raise NotFound(f"no admin token {token_id!r}")

    def list(self) -> list[AdminToken]:
        """Every token, oldest first."""
        found = [AdminToken.model_validate_json(one) for one in self._redis.hvals(keys.ADMIN_TOKENS)]
        return sorted(found, key=lambda one: (one.created_at, one.id))

    def revoke(self, token_id: str) -> AdminToken:
        """Ends a token and its sessions. Raises NotFound, and Conflict for the last one that may change anything."""
        found = self.get(token_id)
        if [one.id for one in self.list() if one.role == "admin"] == [token_id]:
            raise Conflict("this is the last admin token: make another one first")
        self._forget(token_id)
        return found

    def _forget(self, token_id: str) -> None:
        for place, stored in self._redis.hgetall(keys.ADMIN_TOKENS).items():
            if AdminToken.model_validate_json(stored).id == token_id:
                self._redis.hdel(keys.ADMIN_TOKENS, place)

    def session_secret(self) -> bytes:
        """What signs login sessions, the same in every process."""
        self._redis.set(keys.SESSION_SECRET, secrets.token_bytes(32), nx=True)
        return bytes(self._redis.get(keys.SESSION_SECRET))
