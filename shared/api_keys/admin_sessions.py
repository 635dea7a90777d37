"""Login sessions of the console, kept on the server so that they can be listed and ended.

The browser's cookie holds a random secret, Redis its SHA-256. A session ends when it is idle, twelve hours after login,
at logout, when an operator ends it, and with the admin token that opened it.
"""

import secrets
import time
from collections.abc import Callable, Sequence

from pydantic import BaseModel, ConfigDict
from redis import Redis

from shared import keys
from shared.api_keys.store import hash_secret
from shared.decoding import parse_model
from shared.errors import NotFound

#: Seconds without a request after which a session ends, and after which it ends in any case.
IDLE_SECONDS, MAX_AGE_SECONDS = 3600, 12 * 3600
#: Seconds for which a session's last use is not written again.
USE_INTERVAL_SECONDS = 30
#: Sessions kept at most; opening another one ends the one that was used the longest ago.
MAX_SESSIONS = 1000
SECRET_BYTES = 32


class AdminSession(BaseModel):
    """Record of a session. Times are seconds since the epoch."""

    model_config = ConfigDict(frozen=True)

    #: Names the session in lists; can't be used as its secret.
    id: str
    #: The admin token that opened it, and its role.
    token_id: str
    role: str
    #: SHA-256 of that token: the session ends with the token, even if another one takes its id.
    token_digest: str
    #: Address that logged in.
    address: str
    created_at: float
    #: Last use, up to USE_INTERVAL_SECONDS late.
    used_at: float = 0.0


class AdminSessions:
    """Store of the login sessions."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def open(self, token_id: str, role: str, token_digest: str, address: str) -> tuple[str, AdminSession]:
        """Opens a session; returns its secret, which cannot be read again, and its record."""
        secret, now = secrets.token_urlsafe(SECRET_BYTES), time.time()
        session = AdminSession(
            id=secrets.token_hex(5),
            token_id=token_id,
            role=role,
            token_digest=token_digest,
            address=address,
            created_at=now,
            used_at=now,
        )
        digest = hash_secret(secret)
        with self._redis.pipeline() as pipe:
            pipe.set(keys.admin_session(digest), session.model_dump_json(), ex=min(IDLE_SECONDS, MAX_AGE_SECONDS))
            pipe.zadd(keys.ADMIN_SESSIONS, {digest: now})
            pipe.execute()
        for surplus, _ in self._list_with_digests()[MAX_SESSIONS:]:
            self._end(surplus)
        return secret, session

    def find(self, secret: str, *, is_use: bool = True) -> AdminSession | None:
        """The session, None if it has ended; with `is_use` its idle time starts again."""
        digest = hash_secret(secret)
        stored = self._redis.get(keys.admin_session(digest))
        session = parse_model(AdminSession, stored) if stored else None
        if session is None:
            return None
        now = time.time()
        seconds_left = session.created_at + MAX_AGE_SECONDS - now
        if seconds_left <= 0:
            self._end(digest)
            return None
        if is_use:
            self._record_use(digest, now, min(IDLE_SECONDS, seconds_left))
        return session

    def _record_use(self, digest: str, now: float, lifetime: float) -> None:
        """Extends a session, unless that has just been done; never brings back one that another process ends."""
        used_at = self._redis.zscore(keys.ADMIN_SESSIONS, digest)
        if used_at is None or now - used_at < USE_INTERVAL_SECONDS:
            return
        with self._redis.pipeline() as pipe:
            pipe.zadd(keys.ADMIN_SESSIONS, {digest: now}, xx=True)
            pipe.pexpire(keys.admin_session(digest), max(1, int(1000 * lifetime)))
            pipe.execute()

    def list(self) -> list[AdminSession]:
        """All sessions, the last used one first."""
        return [session for _, session in self._list_with_digests()]

    def _list_with_digests(self) -> Sequence[tuple[str, AdminSession]]:
        uses = [
            (digest.decode(), used_at) for digest, used_at in self._redis.zrevrange(keys.ADMIN_SESSIONS, 0, -1, True)
        ]
        stored = self._redis.mget([keys.admin_session(digest) for digest, _ in uses]) if uses else []
        sessions = []
        for (digest, used_at), record in zip(uses, stored, strict=True):
            session = parse_model(AdminSession, record) if record else None
            if record is None:
                self._redis.zrem(keys.ADMIN_SESSIONS, digest)
            elif session:
                sessions.append((digest, session.model_copy(update={"used_at": used_at})))
        return sessions

    def end(self, session_id: str) -> None:
        """Raises NotFound."""
        if not self._end_where(lambda session: session.id == session_id):
            raise NotFound(f"no session {session_id!r}")

    def end_all(self) -> int:
        """Returns how many sessions there were."""
        return self._end_where(lambda _: True)

    def end_of_token(self, token_digest: str) -> int:
        """Ends the sessions that this admin token has opened; returns how many."""
        return self._end_where(lambda session: session.token_digest == token_digest)

    def _end_where(self, condition: Callable[[AdminSession], bool]) -> int:
        digests = [digest for digest, session in self._list_with_digests() if condition(session)]
        for digest in digests:
            self._end(digest)
        return len(digests)

    def _end(self, digest: str) -> None:
        with self._redis.pipeline() as pipe:
            pipe.delete(keys.admin_session(digest))
            pipe.zrem(keys.ADMIN_SESSIONS, digest)
            pipe.execute()
