"""The records of a large farm, written straight into Redis: accounts, a day of requests, events, a queue."""

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice

from redis import Redis

from shared import keys, names
from shared.api_keys.store import ApiKeys
from shared.credentials.activity.activity import ActivityStore, Gains
from shared.credentials.activity.attempt_counts import SlotCounts, find_bucket, slot_start
from shared.credentials.evidence import UPSTREAM, Evidence
from shared.credentials.importing.entries import read_texts
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.observability.audit_log import AuditLog
from shared.observability.event_log import encode_event
from shared.observability.request_log import ENTRY_FIELD, LogEntry, build_entry
from shared.observability.tape import LETTERS, TAPE_SECONDS
from shared.protocol.messages import RelayRequest
from shared.protocol.relay_queue import RelayQueue
from workers.process.usage_rollup import UsageRollup

ACCOUNTS, LOG_ENTRIES, WAITING, EVENTS, CHANGES = 1_000, 100_000, 500, 10_000, 1_000
#: Weights of the API keys; the first three have requests that wait.
WEIGHTS = (1.0, 2.0, 5.0, *(27 * (1.0,)))
MODELS = ("gpt-large", "gpt-small", "gpt-mini")
POOL, PROCESS = "default", "bench-process"
DAY_SECONDS = 86_400
#: Entries per round trip.
BATCH = 2_000
#: One in so many accounts is in that state.
ILL_ACCOUNTS = {"cooling": 12, "dead": 40, "disabled": 50}


def fill_farm(redis: Redis) -> tuple[list[str], list[str]]:
    """Returns the ids of the accounts and of the API keys."""
    dice = random.Random(1)
    Unsealer("a secret key for the measurement of pages").ensure_sealing_key(redis)
    accounts = add_accounts(redis)
    api_keys = [ApiKeys(redis).create(f"key {n}", weight=weight)[1].id for n, weight in enumerate(WEIGHTS)]
    write_log(redis, dice, accounts, api_keys)
    write_events(redis, dice, accounts)
    enqueue_requests(redis, dice, api_keys[:3])
    return accounts, api_keys


def add_accounts(redis: Redis) -> list[str]:
    """Adds the accounts, some of them ill, each with what it has done lately, and a worker process that has them."""
    store = Credentials(redis)
    report = store.import_entries(POOL, list(read_texts([f"refresh-token-of-account-{n:05}" for n in range(ACCOUNTS)])))
    ids = [line.id for line in report.lines]
    now = time.time()
    for number, credential_id in enumerate(ids):
        store.set_label(POOL, credential_id, f"reader {number}")
        redis.set(keys.lease(credential_id), f"{PROCESS}:1")
        for state, interval in ILL_ACCOUNTS.items():
            if number % interval == interval - 1:
                store.set_state(POOL, credential_id, state, "rate_limited", now + 600, Evidence(UPSTREAM, 429))  # type: ignore[arg-type]
    counts = SlotCounts(40, 2, Counter({find_bucket(0.4): 40}))
    gains = Gains({"used_at": now}, {slot_start(now - 300 * n): counts for n in range(12)})
    ActivityStore(redis).record(dict.fromkeys(ids, gains))
    redis.zadd(keys.PROCESSES, {PROCESS: now + DAY_SECONDS})
    redis.hset(keys.process(PROCESS), mapping={f"busy:{POOL}": 600, f"idle:{POOL}": 300})
    write_tape(redis, ids, now)
    return ids


def write_tape(redis: Redis, ids: list[str], now: float) -> None:
    """What each account did in the last two minutes, in place of what was written before."""
    redis.delete(keys.tape(PROCESS))
    dice, letters = random.Random(2), "".join(LETTERS.values())
    redis.zadd(keys.TAPES, {PROCESS: now})
    for second in range(TAPE_SECONDS):
        fields = {"c": "".join(dice.choices(letters, (60, 20, *(len(letters) - 2) * (3,)), k=len(ids)))}
        at = int(1000 * (now - TAPE_SECONDS + second))
        redis.xadd(keys.tape(PROCESS), {**fields, "k": " ".join(ids)}, id=f"{at}-0")


def write_log(redis: Redis, dice: random.Random, accounts: list[str], api_keys: list[str]) -> None:
    """A day of requests, rolled up into the usage."""
    now = time.time()
    entries = build_entries(dice, now, accounts, api_keys)
    while batch := list(islice(entries, BATCH)):
        with redis.pipeline(transaction=False) as pipe:
            for at, entry in batch:
                pipe.xadd(keys.REQUEST_LOG, {ENTRY_FIELD: entry.encode()}, id=f"{int(1000 * at)}-*")
            pipe.execute()
    UsageRollup(redis, LOG_ENTRIES, 31, 31).roll_up()


def build_entries(
    dice: random.Random, now: float, accounts: list[str], api_keys: list[str]
) -> Iterator[tuple[float, LogEntry]]:
    """Entries with their times, in seconds since the epoch."""
    for number in range(LOG_ENTRIES):
        is_failed = number % 37 == 0
        began_at = now - DAY_SECONDS * (1 - number / LOG_ENTRIES)
        request = build_request(began_at, dice.choice(api_keys), dice.choice(MODELS))
        queue_ms, first_ms = dice.randrange(2_000), dice.randrange(200, 900)
        entry = build_entry(
            request,
            status=429 if is_failed else 200,
            code="queue_timeout" if is_failed else "",
            attempts=1 + number % 11 // 10,
            credential=dice.choice(accounts),
            queue_ms=queue_ms,
            first_ms=queue_ms + first_ms,
            total_ms=queue_ms + first_ms + dice.randrange(5_000),
            prompt_tokens=dice.randrange(2_000),
            completion_tokens=dice.randrange(800),
            end="done",
        )
        yield began_at, entry


def build_request(at: float, key: str, model: str) -> RelayRequest:
    """A request that was admitted then, in seconds since the epoch."""
    request_id = names.new_request_id(at)
    channel = f"farm:reply:bench:{request_id}"
    return RelayRequest(
        request_id, POOL, "/chat/completions", {}, "bench", channel, at, at + 600, key=key, model=model, stream=True
    )


def write_events(redis: Redis, dice: random.Random, accounts: list[str]) -> None:
    """As many events and changes by operators as are kept."""
    kinds = ("credential_cooling", "credential_active", "credential_dead", "lease_lost")
    with redis.pipeline(transaction=False) as pipe:
        for _ in range(EVENTS):
            event = encode_event(
                dice.choice(kinds), pool=POOL, credential_id=dice.choice(accounts), reason="rate_limited"
            )
            pipe.xadd(keys.EVENTS, {"e": event})
        pipe.execute()
    audit = AuditLog(redis)
    for number in range(CHANGES):
        audit.record("bench", "credential.update", accounts[number % len(accounts)], {"label": f"label {number}"})


def enqueue_requests(redis: Redis, dice: random.Random, api_keys: list[str]) -> None:
    queue = RelayQueue(redis, max_queue=WAITING)
    redis.hset(keys.fair_queue(POOL), "cost", 2.5)
    body = json.dumps({"model": MODELS[0], "messages": [{"role": "user", "content": "hello"}]}).encode()
    for _ in range(WAITING):
        place = dice.randrange(len(api_keys))
        request = build_request(time.time(), api_keys[place], dice.choice(MODELS))
        queue.enqueue(request, body, weight=WEIGHTS[place])
