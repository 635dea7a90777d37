"""Seals everything in Redis with another key, for `./farm rekey`; only the launcher may import it.

Safe when interrupted at any point: each value tells which key it has, `farm:vault:next` says that a change is under way
and to which key, no process starts meanwhile, and a second run with the same keys finishes it.
"""

import time
from collections.abc import Sequence

from redis import Redis

from shared import keys
from shared.credentials.sealing import Sealer
from shared.credentials.unsealing import Unsealer
from shared.errors import FarmError, WrongSecretKey
from shared.live_processes import HEARTBEAT_TIMEOUT_SECONDS

#: Fields of a credential that are sealed, for its id as the context.
SEALED_FIELDS = ("sealed", "previous", "access")


def require_stopped(redis: Redis, wait_seconds: float = HEARTBEAT_TIMEOUT_SECONDS + 2) -> None:
    """Raises FarmError if a front or a worker process is alive: either could seal a token with the old key.

    Waits for the last heartbeats of processes that have just stopped to become old.
    """
    give_up_at = time.monotonic() + wait_seconds
    while alive := find_alive(redis):
        if time.monotonic() > give_up_at:
            raise FarmError(f"{alive} of this farm is running: stop the farm on every host first; nothing was changed")
        time.sleep(0.2)


def find_alive(redis: Redis) -> str:
    """A kind of process of which one is alive, '' for none."""
    alive_since = redis.time()[0] - HEARTBEAT_TIMEOUT_SECONDS
    worker_processes = (keys.PROCESSES, keys.RETIRING_PROCESSES)
    kinds = (*((members, "a worker process") for members in worker_processes), (keys.FRONTS, "a front"))
    return next((name for key, name in kinds if redis.zcount(key, alive_since, "+inf")), "")


def is_rekeyed(redis: Redis, new: Unsealer) -> bool:
    """Whether the farm has that key already and no change is under way."""
    stored, next_key = redis.mget(keys.SEALING_KEY, keys.NEXT_SEALING_KEY)
    return bool(stored == new.public_keys[0] and not next_key)


def reseal_all(redis: Redis, old: Sequence[Unsealer], new: Unsealer) -> int:
    """Makes `new` the farm's key; returns the number of credentials. Raises FarmError before anything is changed.

    `old`: keys that values may be sealed with, beside the new one.
    """
    stored, next_key = redis.mget(keys.SEALING_KEY, keys.NEXT_SEALING_KEY)
    target = new.public_keys[0]
    if next_key not in (None, target):
        raise FarmError("an earlier `./farm rekey` to another key was interrupted: run it with that key first")
    known = {key for unsealer in (*old, new) for key in unsealer.public_keys}
    if stored is not None and stored not in known:
        raise WrongSecretKey(
            "FARM_SECRET_KEY (or secret.key in the data dir) is not this farm's key; nothing was changed"
        )
    openers = (new, *old)
    credential_ids = [key.decode().removeprefix(keys.credential("")) for key in redis.scan_iter(keys.credential("*"))]
    for credential_id in credential_ids:
        unseal_fields(redis, credential_id, openers)
    redis.set(keys.NEXT_SEALING_KEY, target)
    for credential_id in credential_ids:
        reseal(redis, credential_id, openers, new.sealer)
    with redis.pipeline(transaction=True) as pipe:
        pipe.set(keys.SEALING_KEY, target)
        pipe.delete(keys.NEXT_SEALING_KEY)
        pipe.execute()
    return len(credential_ids)


def unseal_fields(redis: Redis, credential_id: str, openers: Sequence[Unsealer]) -> dict[str, str]:
    """A credential's secrets by field. Raises WrongSecretKey when no key opens one."""
    values = redis.hmget(keys.credential(credential_id), SEALED_FIELDS)
    return {
        field: unseal(value, credential_id, openers)
        for field, value in zip(SEALED_FIELDS, values, strict=True)
        if value is not None
    }


def unseal(sealed: bytes, credential_id: str, openers: Sequence[Unsealer]) -> str:
    for unsealer in openers:
        try:
            return unsealer.unseal(sealed, credential_id)
        except WrongSecretKey:
            continue
    raise WrongSecretKey(
        f"credential {credential_id} is sealed with another key: remove it or provide that key; nothing was changed"
    )


def reseal(redis: Redis, credential_id: str, openers: Sequence[Unsealer], sealer: Sealer) -> None:
    """Seals a credential's secrets anew, all at once."""
    fields = unseal_fields(redis, credential_id, openers)
    if fields:
        sealed = {field: sealer.seal(secret, credential_id) for field, secret in fields.items()}
        redis.hset(keys.credential(credential_id), mapping=sealed)
