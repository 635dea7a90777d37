"""A farm's records for the console's pages: accounts in every state, keys, requests, changes, a queue."""

import json
import random
import time

from redis import Redis

from shared import clock
from shared import keys as farm_keys
from shared.api_keys.store import ApiKeys
from shared.credentials.activity.activity import ActivityStore, Gains
from shared.credentials.activity.allowance import Allowance, Left
from shared.credentials.activity.attempt_counts import SlotCounts, slot_start
from shared.credentials.records import STATES, State
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.observability.account_time.account_hours import list_hours
from shared.observability.audit_log import AuditLog
from shared.observability.counters import BUCKET_BOUNDS_SECONDS
from shared.observability.key_seconds import KeySeconds
from shared.observability.request_log import RequestLog
from shared.observability.samples import HISTOGRAMS, Totals
from shared.observability.tape import TAPE_SECONDS
from shared.protocol.relay_queue import RelayQueue
from tests.builders import build_log_entry, build_request
from tests.console_batches import fill_batches
from tests.console_events import fill_alerts, fill_events
from tests.console_files import fill_files
from web.admin.bulk.progress import ProgressStore
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
    add_activity(redis, ids[min(3, accounts - 1)])
    names, models = ("laptop", "subtitles", odd_name), ("gpt-large", "gpt-small", odd_name)
    key_ids = [ApiKeys(redis).create(name, note=name, rpm=600 * number)[1].id for number, name in enumerate(names)]
    RequestLog(redis).write(
        [
            build_log_entry(
                number,
                key=dice.choice(key_ids),
                pool=pool,
                model=dice.choice(models),
                endpoint="/chat/completions",
                credential=dice.choice(ids),
                attempts=1 + (number % 9 == 0),
                tried=f"{ids[0]}:upstream_error:503:180:{number}" if number % 9 == 0 else "",
                ahead=f" {key_ids[0]}:7 {key_ids[2]}:3 *:2" if number % 3 == 0 else "",
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
    AuditLog(redis).record("command line", "key.create", key_ids[0], {"name": odd_name})
    fill_account_time(redis, ids, pool, dice)
    fill_queue(redis, pool, key_ids, odd_name)
    fill_events(redis, ids, pool)
    fill_alerts(redis, pool, odd_name)
    fill_batches(redis, key_ids[0], odd_name)
    fill_files(redis, key_ids, odd_name)
    return ids


def fill_queue(redis: Redis, pool: str, key_ids: list[str], model: str) -> None:
    """Requests that wait in both bands, one that waits no more, and what the keys got and what arrived in a minute."""
    queue, counted, now = RelayQueue(redis, 1000), KeySeconds(), time.time()
    for number in range(12):
        band = "batch" if number % 4 == 0 else "interactive"
        key = key_ids[number % len(key_ids)]
        request = build_request(
            f"req_w{number}", pool=pool, key=key, model=model, band=band, enqueued_at=now - 40 + number
        )
        queue.enqueue(request, b"{}", weight=1 + number % len(key_ids))
    redis.hset(farm_keys.fair_queue(pool), "cost", 1.7)
    for number, key in enumerate(key_ids):
        counted.add(pool, key, 40.0 * (number + 1))
    counted.flush(redis)
    slot = int(now / 5) * 5
    for at, figures in ((slot - 50, {"served": 0}), (slot, {"served": 120, "waiting": 12})):
        totals = json.dumps({"now": {pool: figures}})
        redis.xadd(farm_keys.samples(5), {"e": totals}, id=f"{at}000-0")


def fill_account_time(redis: Redis, ids: list[str], pool: str, dice: random.Random) -> None:
    """What the accounts' workers did: on the tape, by the hour, and in samples of the last hour."""
    now = int(clock.now())
    redis.zadd(farm_keys.PROCESSES, {"p1": now})
    redis.zadd(farm_keys.TAPES, {"p1": now})
    rows = {id_: write_row(dice) for id_ in ids}
    for second in range(TAPE_SECONDS + 15):
        column = {"c": "".join(row[second] for row in rows.values()), "k": " ".join(ids)}
        redis.xadd(farm_keys.tape("p1"), column, id=f"{(now - TAPE_SECONDS - 14 + second) * 1000}-0")
    for hour in list_hours():
        for number, id_ in enumerate(ids):
            busy = dice.randrange(3600) * (number % 5) // 5
            redis.hset(farm_keys.account_seconds(hour), mapping={f"b{id_}": busy, f"i{id_}": 3600 - busy})
    total = {"busy": 0.0, "idle": 0.0, "idle_waiting": 0.0, "resting": 0.0}
    counts, waits = {"200": 0, "429": 0}, [0.0] * (len(BUCKET_BOUNDS_SECONDS) + 1)
    for minute in range(61):
        total = {work: seconds + dice.randrange(400) for work, seconds in total.items()}
        counts = {"200": counts["200"] + dice.randrange(90, 200), "429": counts["429"] + dice.randrange(2)}
        waits = [count + dice.randrange(9) for count in waits]
        present = {"waiting": dice.randrange(30), "held": 0, "busy": 9, "workers": len(ids)}
        totals = Totals({pool: counts}, {pool: total}, dict.fromkeys(HISTOGRAMS, waits), {pool: present})
        at = (now // 60 - 60 + minute) * 60_000
        redis.xadd(farm_keys.samples(60), {"e": json.dumps(vars(totals))}, id=f"{at}-0")


def write_row(dice: random.Random) -> str:
    """Runs of work, some longer than others."""
    runs = (dice.choice("bbbbiiwcr-") * dice.randrange(1, 25) for _ in range(TAPE_SECONDS + 15))
    return "".join(runs)[: TAPE_SECONDS + 15]


def add_activity(redis: Redis, credential_id: str) -> None:
    """What one account has done lately, its last test, and what it has left."""
    now, left = time.time(), (Left("requests", 0.0, 60.0, time.time() + 30), Left("tokens-day", 81_500.0))
    failure = {"failed_at": now - 90, "failed_outcome": "rate_limited", "failed_evidence": "upstream 429 rate_limited"}
    fields = {"used_at": now - 60, "allowance": Allowance(now - 60, left).encode(), **failure}
    activities = ActivityStore(redis)
    activities.record({credential_id: Gains(fields, {slot_start(now): SlotCounts(30, 2)})})
    activities.keep_test(
        credential_id, {"ok": True, "status": 200, "refresh_ms": 210, "first_byte_ms": 640, "chat_ms": 890}
    )


def add_account(redis: Redis, pool: str, number: int, odd_name: str) -> str:
    credentials = Credentials(redis)
    label = odd_name if number == 0 else f"translator {number}"
    credential_id, _ = credentials.add(pool, f"refresh-token-{number}", label, "https://tokens.example")
    choices = [(state, reason) for state in STATES for reason in REASONS[state]]
    state, reason = choices[number] if number < len(choices) else choices[0]
    if state != "active":
        credentials.set_state(pool, credential_id, state, reason)
    return credential_id


def add_operation(redis: Redis, ids: list[str]) -> str:
    """An operation on all accounts, of which one part is done."""
    store = ProgressStore(redis)
    operation = store.begin("test", len(ids))
    store.record(operation, dict.fromkeys(ids[:12], "ok") | dict.fromkeys(ids[12:14], "invalid_grant"))
    return operation
