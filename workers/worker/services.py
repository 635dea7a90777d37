"""What all workers of a process share; plain data, put together in worker_process.py."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import requests
from gevent.lock import BoundedSemaphore
from redis import Redis
from redis.connection import ConnectionPool

from shared.observability.counters import Counters
from shared.settings.schema import Settings
from workers.attempt.cancel_scope import DeadlineMonitor
from workers.credentials.circuit_breaker import CircuitBreaker
from workers.credentials.token_store import TokenStore
from workers.per_pool import PerPool
from workers.reply.stream_registry import StreamRegistry
from workers.upstream.client import UpstreamRoute


@dataclass(frozen=True)
class WorkerServices:
    """What all workers of a process share."""

    settings: Settings
    redis: Redis
    connections: ConnectionPool
    streams: StreamRegistry
    deadlines: DeadlineMonitor
    counters: Counters
    token_store: TokenStore
    #: Pool -> its circuit breaker.
    breakers: PerPool[CircuitBreaker]
    #: Pool -> how many of its workers run in this process.
    worker_counts: Counter[str]
    #: How many may ask a token endpoint at once, and the session of each configured pool that they ask over.
    refresh_limit: BoundedSemaphore
    token_sessions: Mapping[str, requests.Session]
    #: Configured pool -> how its upstream is reached.
    routes: PerPool[UpstreamRoute]
    #: Moves a credential to another state: pool, id, state, reason, until.
    set_state: Callable[[str, str, str, str, float], None]
    #: Whether `rq suspend` is in force.
    is_suspended: Callable[[], bool]
