"""What each API key has of a pool: what waits and runs, its next turn, whom it waits for, and what it got lately."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from redis import Redis

from shared import keys
from shared.observability.key_seconds import read_slots
from shared.observability.names_by_id import find_key_names
from shared.protocol.relay_queue import BANDS
from shared.queue_view.fairness import FairShare, Rival, find_rivals, list_shares
from shared.queue_view.service_order import Turn
from shared.queue_view.snapshot import QueueSnapshot


@dataclass(frozen=True)
class KeyShare:
    """An API key with requests that wait or run in the pool."""

    key: str
    key_name: str
    weight: float
    waiting: int
    running: int
    #: Its share of the workers by weight, of the keys that wait or run.
    entitled: float
    #: Turn of its next request; 0 if none of those that were read is its.
    next_position: int
    #: The keys whose requests are before that one, those with the most first.
    waits_for: Sequence[Rival] = ()


@dataclass(frozen=True)
class KeyShares:
    """The API keys of a pool: those with requests now, and what each got in the last five minutes."""

    present: Sequence[KeyShare]
    ledger: Sequence[FairShare]


def read_key_shares(redis: Redis, pool: str, snapshot: QueueSnapshot, order: Sequence[Turn]) -> KeyShares:
    """`order`: the waiting requests in the order of service."""
    waiting, running = Counter[str](), Counter(started.key for started in snapshot.running if started.key)
    for line in (line for band in BANDS for line in snapshot.lines[band]):
        waiting[line.key] += line.length
    slots = read_slots(redis, pool)
    present = sorted({*waiting, *running}, key=lambda key: (-waiting[key], -running[key], key))
    everyone = {*present, *(key for slot in slots for key in slot)}
    names, weights = find_key_names(redis, everyone), read_weights(redis, pool, everyone)
    total = sum(weights[key] for key in present)
    rivals = find_rivals(order, running, names)
    positions: dict[str, int] = {}
    for position, turn in enumerate(order, 1):
        positions.setdefault(turn.key, position)
    shares = [
        KeyShare(
            key=key,
            key_name=names.get(key, ""),
            weight=weights[key],
            waiting=waiting[key],
            running=running[key],
            entitled=round(weights[key] / total, 4),
            next_position=positions.get(key, 0),
            waits_for=rivals.get(key, ()),
        )
        for key in present
    ]
    return KeyShares(shares, list_shares(slots, waiting.keys(), weights, names))


def read_weights(redis: Redis, pool: str, key_ids: Collection[str]) -> Mapping[str, float]:
    """The keys' weights, as the scheduler knows them."""
    if not key_ids:
        return {}
    found = redis.hmget(keys.fair_queue(pool), [f"weight:{key}" for key in key_ids])
    return {key: float(weight or 1.0) for key, weight in zip(key_ids, found, strict=True)}
