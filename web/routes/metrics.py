"""The farm's metrics in Prometheus' text format: counters of all processes, gauges of queues and workers."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from flask import Blueprint, Response, request
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from redis import Redis

from shared import keys
from shared.alerts.store import count_alerts
from shared.batches.batch import UNFINISHED
from shared.batches.batch_store import Batches
from shared.files.file_store import sum_by_purpose
from shared.live_processes import find_oldest_heartbeat
from shared.observability import counters
from shared.observability.durability import STATES, Durability, read_durability
from shared.observability.pool_status import PoolStatus, read_pool_statuses
from shared.observability.refreshers import read_refreshers
from shared.observability.state_reasons import count_state_reasons
from web.access.metrics_token import check_metrics_token
from web.services import services

blueprint = Blueprint("metrics", __name__)
PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "farm_"


@blueprint.get("/metrics")
def metrics() -> Response:
    web_services = services()
    check_metrics_token(request, web_services.settings.metrics_token)
    web_services.flush()
    return Response(
        render(web_services.redis, [pool.name for pool in web_services.pool_selector]), content_type=PROMETHEUS_TEXT
    )


def render(redis: Redis, pools: Sequence[str]) -> bytes:
    registry = CollectorRegistry()
    registry.register(
        FarmCollector(
            counters.read_counters(redis),
            read_pool_statuses(redis, pools),
            read_body_bytes(redis),
            read_durability(redis),
            read_refreshers(redis).count,
            count_state_reasons(redis, pools),
            count_alerts(redis),
            Batches(redis).count_by_status(),
            sum_by_purpose(redis),
        )
    )
    return generate_latest(registry)


def read_body_bytes(redis: Redis) -> dict[str, int]:
    """Where request bodies are -> their bytes; in Redis without the small ones, which are not counted."""
    in_redis = int(redis.hget(keys.BODY_SUMS, "total") or 0)
    fronts = redis.zrangebyscore(keys.FRONTS, find_oldest_heartbeat(), "+inf")
    held = redis.hmget(keys.FRONT_BODY_BYTES, fronts) if fronts else []
    return {"redis": max(0, in_redis), "fronts": sum(int(size or 0) for size in held)}


class FarmCollector(Collector):
    """The metrics of one scrape."""

    def __init__(
        self,
        counts: dict[counters.CounterKey, float],
        pools: list[PoolStatus],
        body_bytes: dict[str, int],
        durability: Durability,
        refresher_count: int,
        state_reasons: Mapping[tuple[str, str, str], int],
        alerts: Mapping[str, int],
        batches: Mapping[str, int],
        files: Mapping[str, tuple[int, int]],
    ) -> None:
        """`body_bytes`: where request bodies are held -> their bytes; `alerts`: rule -> raised alerts; `batches`:
        status -> unfinished batches; `files`: purpose -> files and their bytes.
        """
        self._files = files
        self._batches = batches
        self._refresher_count = refresher_count
        self._state_reasons = state_reasons
        self._alerts = alerts
        self._pools = pools
        self._body_bytes = body_bytes
        self._durability = durability
        self._by_name: defaultdict[str, dict[tuple[tuple[str, ...], str], float]] = defaultdict(dict)
        for (name, labels, part), value in counts.items():
            self._by_name[name][(labels, part)] = value

    def collect(self) -> Iterator[Family]:
        """prometheus_client: yields every metric family."""
        for name, metric in counters.METRICS.items():
            values = self._by_name[name]
            yield (
                build_counter(name, metric, values)
                if metric.kind == "counter"
                else build_histogram(name, metric, values)
            )
        yield from build_gauges(self._pools)
        yield build_state_reasons(self._state_reasons)
        alerts = GaugeMetricFamily(
            PREFIX + "alerts", "Raised alerts, by rule; none of them while nobody watches.", labels=("rule",)
        )
        for rule, count in self._alerts.items():
            alerts.add_metric((rule,), count)
        yield alerts
        yield build_batches(self._batches)
        yield from build_files(self._files)
        bodies = GaugeMetricFamily(
            PREFIX + "body_bytes",
            "Bytes of request bodies held: waiting in Redis, arriving in fronts.",
            labels=("place",),
        )
        for place, size in self._body_bytes.items():
            bodies.add_metric((place,), size)
        yield bodies
        states = GaugeMetricFamily(
            PREFIX + "durability",
            "Whether Redis confirms that rotated refresh tokens are durable: 1 for the state it is in.",
            labels=("state",),
        )
        for state in STATES:
            states.add_metric((state,), state == self._durability.state)
        yield states
        yield GaugeMetricFamily(
            PREFIX + "token_refreshers", "Token refreshers that report, one per worker host.", self._refresher_count
        )


def build_counter(name: str, metric: counters.Metric, values: dict[tuple[tuple[str, ...], str], float]) -> Family:
    """Builds a counter, with the value 0 if it has no labels and was never incremented."""
    family = CounterMetricFamily(PREFIX + name, metric.help, labels=metric.labels)
    for (labels, _), value in sorted(values.items()):
        family.add_metric(labels, value)
    if not metric.labels and not values:
        family.add_metric([], 0)
    return family


def build_histogram(name: str, metric: counters.Metric, values: dict[tuple[tuple[str, ...], str], float]) -> Family:
    """Builds a histogram with cumulative buckets, as Prometheus requires."""
    total = 0.0
    buckets = []
    for i, bound in enumerate([*map(str, metric.bounds), "+Inf"]):
        total += values.get(((), f"le{i}"), 0.0)
        buckets.append((bound, total))
    family = HistogramMetricFamily(PREFIX + name, metric.help)
    family.add_metric([], buckets, values.get(((), "sum"), 0.0))
    return family


def build_state_reasons(counts: Mapping[tuple[str, str, str], int]) -> Family:
    """`counts`: pool, state, reason -> credentials."""
    family = GaugeMetricFamily(
        PREFIX + "credentials_out_of_service",
        "Credentials in another state than active, by reason.",
        labels=("pool", "state", "reason"),
    )
    for labels, count in sorted(counts.items()):
        family.add_metric(labels, count)
    return family


def build_batches(counts: Mapping[str, int]) -> Family:
    family = GaugeMetricFamily(PREFIX + "batches", "Unfinished batches, by state.", labels=("state",))
    for state in UNFINISHED:
        family.add_metric((state,), counts.get(state, 0))
    return family


def build_files(sums: Mapping[str, tuple[int, int]]) -> Iterator[Family]:
    count = GaugeMetricFamily(PREFIX + "files", "Files that API keys store, by purpose.", labels=("purpose",))
    size = GaugeMetricFamily(PREFIX + "file_bytes", "Bytes of these files.", labels=("purpose",))
    for purpose, (files, file_bytes) in sums.items():
        count.add_metric((purpose,), files)
        size.add_metric((purpose,), file_bytes)
    yield from (count, size)


def build_gauges(pools: list[PoolStatus]) -> Iterator[Family]:
    depth = GaugeMetricFamily(PREFIX + "queue_depth", "Queued requests.", labels=("pool", "band"))
    held = GaugeMetricFamily(
        PREFIX + "requests_held", "Requests that wait for a limit of their API key.", labels=("pool", "band")
    )
    workers = GaugeMetricFamily(PREFIX + "workers", "Workers by state.", labels=("pool", "state"))
    credentials = GaugeMetricFamily(PREFIX + "credentials", "Credentials by state.", labels=("pool", "state"))
    utilisation = GaugeMetricFamily(
        PREFIX + "utilisation", "Share of the workers' time spent on requests, over about 10 s.", labels=("pool",)
    )
    down = GaugeMetricFamily(PREFIX + "upstream_down", "Whether the pool's circuit breaker is open.", labels=("pool",))
    token_endpoint = GaugeMetricFamily(
        PREFIX + "token_endpoint_down", "Whether the breaker of the pool's token endpoint is open.", labels=("pool",)
    )
    resting = GaugeMetricFamily(
        PREFIX + "resting_seconds",
        "Seconds until the first credential comes back while all of a pool rest; 0 while one is in service.",
        labels=("pool",),
    )
    paused = GaugeMetricFamily(PREFIX + "pool_paused", "Whether an operator has paused the pool.", labels=("pool",))
    private = GaugeMetricFamily(PREFIX + "private_credentials", "Private credentials.", labels=("pool",))
    for pool in pools:
        resting.add_metric((pool.name,), pool.resting_seconds)
        private.add_metric((pool.name,), pool.private_credentials)
        down.add_metric((pool.name,), pool.upstream_down)
        paused.add_metric((pool.name,), bool(pool.pause.since))
        token_endpoint.add_metric((pool.name,), bool(pool.token_endpoint_failure))
        by_label = (
            (depth, pool.queue_depth),
            (held, pool.held),
            (workers, pool.workers),
            (credentials, pool.credentials),
        )
        for family, values in by_label:
            for label, value in values.items():
                family.add_metric((pool.name, label), value)
        utilisation.add_metric((pool.name,), pool.utilisation)
    yield from (depth, held, workers, credentials, utilisation, private, down, token_endpoint, resting, paused)
