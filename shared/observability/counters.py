"""Counters and histograms, buffered in each process and summed in Redis.

A process that is killed loses what it has not flushed yet: about one second's worth.
"""

import json
import secrets
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from redis import Redis

from shared import keys
from shared.parsing import parse_json
from shared.redis_connection.client import register_script

ADD_COUNTS_SCRIPT = Path(__file__).with_name("add_counts.lua")

#: Upper bounds of the histogram buckets, in seconds.
BUCKET_BOUNDS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)

#: Those of the times between a token endpoint's answer and the store.
STORE_BOUNDS_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)


@dataclass(frozen=True)
class Metric:
    """Definition of a metric that is counted as events happen."""

    kind: Literal["counter", "histogram"]
    labels: tuple[str, ...]
    help: str
    #: Upper bounds of a histogram's buckets, in seconds.
    bounds: tuple[float, ...] = BUCKET_BOUNDS_SECONDS


#: Metric name, without the prefix `farm_` and the suffix `_total` -> its definition.
METRICS: Mapping[str, Metric] = {
    "batch_lines": Metric("counter", ("outcome",), "Requests of batches that have got their result."),
    "requests": Metric("counter", ("pool", "endpoint", "status"), "Completed requests, by status."),
    "shared_answers": Metric(
        "counter",
        ("pool", "outcome"),
        "Requests that may share their answer: run (`miss`), joined to a running one, or a hit.",
    ),
    "account_rests": Metric(
        "counter", ("pool", "limit"), "Rests of accounts that had reached a limit of their settings, by its name."
    ),
    "queue_wait_seconds": Metric("histogram", (), "Seconds between admission and the start of an attempt."),
    "time_to_first_token_seconds": Metric(
        "histogram", (), "Seconds between admission and the first byte of the response."
    ),
    "request_seconds": Metric("histogram", (), "Seconds between admission and the end of the response."),
    "attempts": Metric("counter", ("pool", "outcome"), "Upstream attempts, by outcome."),
    "collisions": Metric("counter", (), "Attempts started on a credential with one in flight; must stay 0."),
    "turns_refused": Metric(
        "counter",
        ("at",),
        "Requests not begun, or not sent, because the worker had lost its credential's lease; that is what it is for.",
    ),
    "token_refreshes": Metric("counter", ("outcome",), "Token refreshes, by outcome."),
    "token_store_seconds": Metric(
        "histogram",
        (),
        "Seconds between a token endpoint's answer and the store in Redis, within which a kill can lose it.",
        STORE_BOUNDS_SECONDS,
    ),
    "token_durable_seconds": Metric(
        "histogram",
        (),
        "Seconds between a token endpoint's answer and its use: on disk, held by replicas.",
        STORE_BOUNDS_SECONDS,
    ),
    "tokens_in_doubt": Metric(
        "counter", ("reason",), "Token refreshes that ended without an answer, so that the token may have been rotated."
    ),
    "frames_replayed": Metric("counter", (), "Reply frames retransmitted because a front missed them."),
    "breaker_opened": Metric("counter", ("pool", "reason"), "Times that a pool's circuit breaker opened, by reason."),
    "tokens_not_durable": Metric(
        "counter", ("reason",), "Rotated refresh tokens used before they were known to be durable, by reason."
    ),
    "token_breaker_opened": Metric(
        "counter", ("pool", "reason"), "Times that the breaker of a pool's token endpoint opened, by reason."
    ),
    "credential_changes": Metric(
        "counter", ("pool", "state", "reason"), "Credential state changes, by new state and reason."
    ),
    "account_seconds": Metric(
        "counter",
        ("pool", "state"),
        "Seconds of the credentials' workers, by what they did; `idle_waiting`: idle while requests waited.",
    ),
    "leases_lost": Metric("counter", (), "Leases that expired while a worker held them."),
    "orphans": Metric("counter", ("outcome",), "Orphaned jobs of dead workers, by outcome."),
    "fronts_lost": Metric("counter", (), "Fronts that died."),
    "tokens": Metric("counter", ("kind",), "Tokens used by requests, by kind: prompt or completion."),
    "alert_messages": Metric(
        "counter",
        ("service", "outcome"),
        "Messages to receivers of alerts, by the service of their URL; sent, or failed, which is tried again.",
    ),
    "admin_token_checks": Metric(
        "counter", ("outcome",), "Admin tokens presented: right, wrong, or banned and not compared."
    ),
    "stream_ends": Metric("counter", ("reason",), "Responses that ended, by reason."),
}

CounterKey = tuple[str, tuple[str, ...], str]


class Batch(NamedTuple):
    """Counts on their way to Redis."""

    #: Counted from 1, in each process.
    number: int
    values: dict[CounterKey, float]


class Counters:
    """Counts of this process that are not yet flushed to Redis."""

    def __init__(self) -> None:
        self._values: defaultdict[CounterKey, float] = defaultdict(float)
        #: Identifies this process's batches; drawn at the first flush, because processes are forked.
        self._source = ""
        self._batch_number = 0
        #: What may have reached Redis or not, because its reply was lost.
        self._unconfirmed: Batch | None = None
        #: `/metrics` flushes too.
        self._flushing = threading.Lock()

    def increment(self, name: str, *labels: str, amount: float = 1) -> None:
        """Increments a counter; `labels` are values in the order of METRICS."""
        self._values[(name, labels, "")] += amount

    def observe(self, name: str, value: float) -> None:
        bucket = bisect_left(METRICS[name].bounds, value)
        self._values[(name, (), f"le{bucket}")] += 1
        self._values[(name, (), "sum")] += max(0.0, value)

    def value(self, name: str, *labels: str) -> float:
        """The count since the last flush that succeeded."""
        field = (name, labels, "")
        unconfirmed = self._unconfirmed.values if self._unconfirmed else {}
        return self._values.get(field, 0.0) + unconfirmed.get(field, 0.0)

    def flush(self, redis: Redis) -> None:
        """Adds all counts to those in Redis, each once. After an error, which is raised, the next flush tries again."""
        with self._flushing:
            self._source = self._source or secrets.token_hex(8)
            if self._unconfirmed:
                self._send(redis, self._unconfirmed)
            values, self._values = self._values, defaultdict(float)
            if values:
                self._batch_number += 1
                self._unconfirmed = Batch(self._batch_number, values)
                self._send(redis, self._unconfirmed)

    def _send(self, redis: Redis, batch: Batch) -> None:
        fields = [item for field, amount in batch.values.items() for item in (encode_key(field), amount)]
        add_counts = register_script(redis, ADD_COUNTS_SCRIPT)
        add_counts(keys=[keys.COUNTERS, keys.counted(self._source)], args=[batch.number, *fields])
        self._unconfirmed = None


def encode_key(field: CounterKey) -> str:
    """Field name of a value in Redis: JSON of [metric, labels, part], where part is '', `le<bucket>` or `sum`."""
    return json.dumps(field, separators=(",", ":"))


def read_counters(redis: Redis) -> dict[CounterKey, float]:
    counts: dict[CounterKey, float] = {}
    for stored, value in redis.hgetall(keys.COUNTERS).items():
        field = parse_json(stored)
        # Another version may write fields of another form.
        if isinstance(field, list) and len(field) == 3 and isinstance(field[1], list):
            counts[(field[0], tuple(field[1]), field[2])] = float(value)
    return counts
