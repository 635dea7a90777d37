"""Counts the credentials that are out of service, by state and reason, for metrics."""

from collections import Counter
from collections.abc import Sequence

from redis import Redis

from shared import keys
from shared.credentials.explanation import EXPLANATIONS
from shared.credentials.records import known_state
from shared.redis_connection.client import decode_hash

#: Reason of those whose reason is a sentence (state `foreign`), or of a later version.
OTHER = "other"


def count_state_reasons(redis: Redis, pools: Sequence[str]) -> Counter[tuple[str, str, str]]:
    """Pool, state and reason -> number of credentials, those in state `active` left out; in two round trips."""
    with redis.pipeline(transaction=False) as pipe:
        for pool in pools:
            pipe.hgetall(keys.credentials(pool))
        out = [
            (pool, known_state(state), credential_id)
            for pool, states in zip(pools, map(decode_hash, pipe.execute()), strict=True)
            for credential_id, state in states.items()
            if state != "active"
        ]
        for _, _, credential_id in out:
            pipe.hget(keys.credential(credential_id), "reason")
        reasons = pipe.execute()
    return Counter(
        (pool, state, label_reason((reason or b"").decode()))
        for (pool, state, _), reason in zip(out, reasons, strict=True)
    )


def label_reason(reason: str) -> str:
    """The reason without the code behind it, of which there may be any number."""
    kind = reason.partition(":")[0]
    return kind.replace(" ", "_") if kind in EXPLANATIONS else OTHER
