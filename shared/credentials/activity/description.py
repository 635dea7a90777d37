"""Describes credentials as operators see them: record, explanation of the state, and what they have done lately."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from redis import Redis

from shared import keys, names
from shared.credentials.activity.activity import Activity, ActivityStore
from shared.credentials.explanation import Circumstances, Explanation, explain_record
from shared.credentials.records import CredentialRecord
from shared.live_processes import find_oldest_heartbeat
from shared.pacing.account_limits import AccountLimits
from shared.pacing.limit_use import LimitUse, read_limit_use
from shared.settings.schema import PoolSettings


@dataclass(frozen=True)
class CredentialDescription:
    """One credential."""

    record: CredentialRecord
    activity: Activity
    explanation: Explanation
    #: The limits that the farm keeps to, with what is left of each.
    limits: Sequence[LimitUse] = ()

    def to_dict(self, *, is_masked: bool = False) -> dict[str, Any]:
        """As JSON has it; `is_masked`: with its account masked, for lists."""
        record, activity = self.record, self.activity
        recent = activity.last_hour
        seconds = recent.first_byte_seconds
        return {
            **(record.to_masked_dict() if is_masked else record.to_dict()),
            "explanation": vars(self.explanation),
            "last_used_at": activity.used_at,
            "in_flight": activity.in_flight,
            "last_hour": {
                "served": recent.served,
                "failed": recent.failed,
                "success_rate": None if recent.success_rate is None else round(recent.success_rate, 4),
                "first_byte_p50_ms": None if seconds is None else round(1000 * seconds),
            },
            "last_failure": activity.last_failure and asdict(activity.last_failure),
            "limits": [vars(limit) for limit in self.limits],
            "allowance": activity.allowance and asdict(activity.allowance),
            "last_test": activity.last_test and asdict(activity.last_test),
        }


def describe_credentials(
    redis: Redis, records: Sequence[CredentialRecord], pools: Sequence[PoolSettings]
) -> list[CredentialDescription]:
    """`pools`: those that are configured."""
    slots = {pool.name: pool.slots for pool in pools}
    activities = ActivityStore(redis).read([(record.pool, record.id, record.owner) for record in records], slots)
    circumstances = read_circumstances(redis, sorted({record.pool for record in records}))
    limits = {pool.name: AccountLimits.of_pool(pool) for pool in pools}
    uses = read_limit_use(
        redis,
        [
            (record.id, limits.get(names.configured_pool(record.pool), AccountLimits()), record.own_limits)
            for record in records
        ],
    )
    return [
        CredentialDescription(
            record,
            activity,
            explain_record(record, activity.last_failure, circumstances[record.pool], activity.in_flight),
            use,
        )
        for record, activity, use in zip(records, activities, uses, strict=True)
    ]


def read_circumstances(redis: Redis, pools: Sequence[str]) -> dict[str, Circumstances]:
    """What keeps a pool's credentials from serving although they could, in one round trip."""
    with redis.pipeline(transaction=False) as pipe:
        pipe.exists(keys.RQ_SUSPENDED)
        pipe.zcount(keys.PROCESSES, find_oldest_heartbeat(), "+inf")
        for pool in pools:
            pipe.exists(keys.breaker(pool))
            pipe.exists(keys.token_breaker(names.configured_pool(pool)))
            pipe.exists(keys.paused(pool))
        is_suspended, processes, *replies = pipe.execute()
    return {
        pool: Circumstances(
            is_suspended=bool(is_suspended),
            is_paused=bool(is_paused),
            has_worker_process=bool(processes),
            is_upstream_down=bool(is_open),
            is_token_endpoint_down=bool(is_token_open),
        )
        for pool, is_open, is_token_open, is_paused in zip(
            pools, replies[::3], replies[1::3], replies[2::3], strict=True
        )
    }
