"""The admin token: kept as its SHA-256, made on the first start, never a default; it knows nothing of HTTP."""

import hmac
import secrets

from redis import Redis

from shared import keys
from shared.api_keys import digest


def ensure(redis: Redis, given: str) -> str | None:
    """Makes sure the farm has an admin token: the given one, the one it has, or a new one.

    Returns the new token, for the only time; None when nothing had to be made.
    """
    if given:
        redis.set(keys.ADMIN_TOKEN, digest(given))
        return None
    token = f"admin-{secrets.token_urlsafe(24)}"
    return token if redis.set(keys.ADMIN_TOKEN, digest(token), nx=True) else None


def matches(redis: Redis, presented: str) -> bool:
    """Whether that is the admin token; takes the same time for every wrong one."""
    stored = redis.get(keys.ADMIN_TOKEN) or b""
    return hmac.compare_digest(stored, digest(presented).encode())


def session_secret(redis: Redis) -> bytes:
    """What signs login sessions: it ends them all when the admin token changes."""
    stored = redis.get(keys.ADMIN_TOKEN)
    return stored or secrets.token_bytes(32)
