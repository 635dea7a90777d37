"""A farm's records for the console's pages: accounts in every state, keys, requests, changes, a queue that is empty."""

import random

from redis import Redis

from shared.api_keys.store import ApiKeys
from shared.credentials.records import STATES, State
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.observability.audit_log import AuditLog
from shared.observability.request_log import RequestLog
from tests.builders import build_log_entry
from workers.process.usage_rollup import UsageRollup

#: Text that would be markup, a script or an attribute if a page did not escape it.
HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
REASONS: dict[State, tuple[str, ...]] = {
    "active": ("",),
    "cooling": ("rate_limited", "allowance_used", "upstream_error", "token_endpoint_down"),
    "disabled": ("by a person",),
    "dead": ("invalid_grant: token_revoked", "api_key_refused"),
    "foreign": ("its token endpoint differs",),
}


def fill_farm(
    redis: Redis, accounts: int = 24, requests: int = 300, pool: str = "default", odd_name: str = HOSTILE
) -> list[str]:
    """Returns the ids of the accounts; the first ones are in each of the states, the others are active.

    `odd_name`: label of one account, name of one key and of one model.
    """
    Unsealer("a secret key for tests").ensure_sealing_key(redis)
    dice = random.Random(1)
    ids = [add_account(redis, pool, number, odd_name) for number in range(accounts)]
    names, models = ("laptop", "subtitles", odd_name), ("gpt-large", "gpt-small", odd_name)
    keys = [ApiKeys(redis).create(name, note=name, rpm=600 * number)[1].id for number, name in enumerate(names)]
    RequestLog(redis).write(
        [
            build_log_entry(
                number,
                key=dice.choice(keys),
                pool=pool,
                model=dice.choice(models),
                endpoint="/chat/completions",
                credential=dice.choice(ids),
                attempts=1 + (number % 9 == 0),
                status=429 if number % 17 == 0 else 200,
                code="queue_timeout" if number % 17 == 0 else "",
                end="done",
                queue_ms=dice.randrange(2000),
                first_ms=2000 + dice.randrange(500),
                total_ms=2500 + dice.randrange(4000),
            )
            for number in range(requests)
        ]
    )
    UsageRollup(redis, 100_000, 7, 31).roll_up()
    AuditLog(redis).record("command line", "key.create", keys[0], {"name": odd_name})
    return ids


def add_account(redis: Redis, pool: str, number: int, odd_name: str) -> str:
    credentials = Credentials(redis)
    label = odd_name if number == 0 else f"translator {number}"
    credential_id, _ = credentials.add(pool, f"refresh-token-{number}", label, "https://tokens.example")
    choices = [(state, reason) for state in STATES for reason in REASONS[state]]
    state, reason = choices[number] if number < len(choices) else choices[0]
    if state != "active":
        credentials.set_state(pool, credential_id, state, reason)
    return credential_id
