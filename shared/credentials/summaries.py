"""What lists of credentials are filtered and sorted by: a list reads this of all, and the records of one page."""

from collections.abc import Iterable
from typing import NamedTuple

from redis import Redis

from shared import keys
from shared.credentials.records import known_state
from shared.redis_connection.client import decode_hash

#: Fields of the hash `farm:credential:<id>` (records.py), in the order of CredentialSummary.
SUMMARY_FIELDS = ("label", "account", "reason", "added_at", "refreshed_at", "state_since")


class CredentialSummary(NamedTuple):
    """The same values as in the credential's record."""

    pool: str
    id: str
    state: str
    label: str
    account: str
    reason: str
    added_at: float
    refreshed_at: float
    state_since: float


def list_summaries(redis: Redis, pools: Iterable[str]) -> list[CredentialSummary]:
    """All credentials of the pools, ordered by pool, then oldest first."""
    names = list(pools)
    with redis.pipeline(transaction=False) as pipe:
        for pool in names:
            pipe.hgetall(keys.credentials(pool))
        states = [
            (pool, *stored)
            for pool, found in zip(names, pipe.execute(), strict=True)
            for stored in decode_hash(found).items()
        ]
        for _, credential_id, _ in states:
            pipe.hmget(keys.credential(credential_id), SUMMARY_FIELDS)
        summaries = [
            build_summary(*credential, *values) for credential, values in zip(states, pipe.execute(), strict=True)
        ]
    return sorted(summaries, key=lambda each: (each.pool, each.added_at, each.id))


def build_summary(pool: str, credential_id: str, state: str, *values: bytes | None) -> CredentialSummary:
    """`values` are those of SUMMARY_FIELDS."""
    label, account, reason, added_at, refreshed_at, state_since = (value or b"" for value in values)
    return CredentialSummary(
        pool=pool,
        id=credential_id,
        state=known_state(state),
        label=label.decode(),
        account=account.decode(),
        reason=reason.decode(),
        added_at=float(added_at or 0),
        refreshed_at=float(refreshed_at or 0),
        state_since=float(state_since or 0),
    )
