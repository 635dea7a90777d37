"""A pool's queue at one moment, read from Redis in one script."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from redis import Redis
from rq.defaults import RQ_KEY_PREFIX
from rq.registry import StartedJobRegistry

from shared import keys
from shared.protocol.relay_queue import BANDS, FAIR_LUA, MODEL_QUEUES_LUA
from shared.redis_connection.client import register_script

SNAPSHOT_LUA = Path(__file__).with_name("snapshot.lua")


@dataclass(frozen=True)
class KeyLine:
    """The waiting requests of one API key in one band, as shared/protocol/fair.lua keeps them."""

    key: str
    #: Virtual time at which its first request may start, and the end of the request that was started last.
    tag: float
    end: float
    weight: float
    #: All requests that wait, and the first of them.
    length: int
    requests: tuple[str, ...]


@dataclass(frozen=True)
class Started:
    """A request that a worker has begun."""

    request: str
    #: Seconds since the epoch.
    started_at: float
    key: str
    #: Seconds charged to the key at the start; None when RQ itself has enqueued the job.
    charged: float | None
    band: str


@dataclass(frozen=True)
class QueueSnapshot:
    """A pool's queue."""

    #: Average seconds of worker time per request, None while none was measured.
    cost: float | None = None
    #: Interactive requests started since the last batch request, while batch requests waited.
    turns: int = 0
    #: Band -> its keys, the next first.
    lines: Mapping[str, Sequence[KeyLine]] = field(default_factory=lambda: dict.fromkeys(BANDS, ()))
    #: Band -> requests that wait for a credential which has not tried them, the next first.
    retries: Mapping[str, Sequence[str]] = field(default_factory=lambda: dict.fromkeys(BANDS, ()))
    running: Sequence[Started] = ()


def read_snapshot(redis: Redis, pool: str, most: int) -> QueueSnapshot:
    """Reads at most so many keys of a band, and requests of a key: enough for the first `most` in order of service."""
    script = register_script(redis, FAIR_LUA, MODEL_QUEUES_LUA, SNAPSHOT_LUA)
    reply = script(keys=[keys.fair_queue(pool), *registry_keys(pool)], args=[most, RQ_KEY_PREFIX])
    cost, turns, interactive, batch, retries, batch_retries, running = reply
    return QueueSnapshot(
        cost=float(cost) if cost else None,
        turns=int(turns),
        lines={"interactive": decode_band(interactive), "batch": decode_band(batch)},
        retries={"interactive": decode_all(retries), "batch": decode_all(batch_retries)},
        running=tuple(map(decode_started, running)),
    )


@cache
def registry_keys(pool: str) -> tuple[str, str]:
    """The Redis keys of RQ's registries of a pool's started jobs, interactive first."""
    interactive, batch = (StartedJobRegistry.key_template.format(name(pool)) for name in BANDS.values())
    return interactive, batch


def decode_band(reply: Sequence[Any]) -> tuple[KeyLine, ...]:
    return tuple(
        KeyLine(key.decode(), float(tag), float(end), float(weight), int(length), decode_all(requests))
        for key, tag, end, weight, length, requests in reply[1:]
    )


def decode_started(reply: Sequence[bytes]) -> Started:
    request, started_at, key, charged, band = (value.decode() for value in reply)
    return Started(request, float(started_at), key, float(charged) if charged else None, band)


def decode_all(values: Sequence[bytes]) -> tuple[str, ...]:
    return tuple(value.decode() for value in values)
