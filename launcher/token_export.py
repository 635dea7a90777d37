"""Reads refresh tokens back out of the store for exports; that takes the secret key."""

from collections.abc import Iterable
from typing import Any

from redis import Redis

from shared import keys
from shared.credentials.records import ACCOUNT_FIELDS
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer


def export_tokens(redis: Redis, unsealer: Unsealer, pools: Iterable[str]) -> list[dict[str, Any]]:
    """Returns every credential of the pools with its unsealed token. Raises WrongSecretKey.

    A credential that is suspended has the state that it had before.
    """
    exported = []
    for credential in Credentials(redis).list(pools):
        names = ("sealed", "state_before", "reason_before", *ACCOUNT_FIELDS)
        sealed, state, reason, *account = redis.hmget(keys.credential(credential.id), names)
        if sealed:
            token = unsealer.unseal(sealed, credential.id)
            facts = {"id": credential.id, "pool": credential.pool, "label": credential.label, "kind": credential.kind}
            facts |= {"state": state.decode() if state else credential.state}
            facts |= {"reason": (reason or b"").decode() if state else credential.reason}
            facts |= {name: value.decode() for name, value in zip(ACCOUNT_FIELDS, account, strict=True) if value}
            facts |= credential.own_limits.to_dict()
            exported.append({**facts, "token_origin": credential.token_origin, "refresh_token": token})
    return exported
