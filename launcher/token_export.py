"""Reads refresh tokens back out of the store for exports; that takes the secret key."""

from collections.abc import Iterable
from typing import Any

from redis import Redis

from shared import keys
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer


def export_tokens(redis: Redis, unsealer: Unsealer, pools: Iterable[str]) -> list[dict[str, Any]]:
    """Returns every credential of the pools with its unsealed token. Raises WrongSecretKey."""
    exported = []
    for credential in Credentials(redis).list(pools):
        sealed = redis.hget(keys.credential(credential.id), "sealed")
        if sealed:
            token = unsealer.unseal(sealed, credential.id)
            facts = {"id": credential.id, "pool": credential.pool, "label": credential.label}
            exported.append({**facts, "state": credential.state, "reason": credential.reason, "refresh_token": token})
    return exported
