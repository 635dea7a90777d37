"""The services that all workers of a process share."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from redis import Redis
from redis.connection import ConnectionPool

from shared.credentials.evidence import Evidence
from shared.observability.account_time.in_flight import InFlight
from shared.observability.counters import Counters
from shared.observability.key_seconds import KeySeconds
from shared.pacing.scripts import CountRequest
from shared.settings.schema import Settings
from workers.attempt.cancel_scope import DeadlineMonitor
from workers.credentials.access_token import RefreshServices
from workers.credentials.account_limits.verdict import LimitVerdict
from workers.credentials.circuit_breaker import CircuitBreaker
from workers.credentials.token_breaker import TokenBreaker
from workers.per_pool import PerPool
from workers.reply.stream_registry import StreamRegistry
from workers.upstream.client import UpstreamRoute
from workers.upstream.stream_options import StreamOptionsSupport
from workers.worker.activity_recorder import ActivityRecorder
from workers.worker.suspension import Suspension


@dataclass(frozen=True)
class WorkerServices:
    """Wired in workers/process/worker_process.py."""

    settings: Settings
    redis: Redis
    connections: ConnectionPool
    streams: StreamRegistry
    deadlines: DeadlineMonitor
    counters: Counters
    #: What access tokens need: the store of the tokens, the token refresher.
    refreshes: RefreshServices
    #: Pool -> its circuit breaker.
    breakers: PerPool[CircuitBreaker]
    #: Configured pool -> the breaker of its token endpoint.
    token_breakers: PerPool[TokenBreaker]
    #: Pool -> number of its workers in this process.
    worker_counts: Counter[str]
    #: Configured pool -> route to its upstream.
    routes: PerPool[UpstreamRoute]
    #: Sets a credential's state: pool, id, state, reason, end of the cooldown (seconds since the epoch, 0 for none),
    #: evidence.
    set_state: Callable[[str, str, str, str, float, Evidence], None]
    #: Counts a request of an account with limits that no job has been begun for.
    count_request: CountRequest = field(init=False)
    #: Whether `rq suspend` is in force, and which pools are paused.
    suspension: Suspension
    #: What the credentials of this process do.
    activity: ActivityRecorder = field(default_factory=ActivityRecorder)
    #: Requests in flight on each credential of this process.
    in_flight: InFlight = field(default_factory=InFlight)
    #: What the workers of this process give to API keys.
    key_seconds: KeySeconds = field(default_factory=KeySeconds)
    #: Configured pool -> whether its upstream takes `stream_options`.
    stream_options: PerPool[StreamOptionsSupport] = field(init=False)
    #: Pool -> what its upstream counts limits per.
    limit_verdicts: PerPool[LimitVerdict] = field(init=False)

    def __post_init__(self) -> None:
        support = PerPool(lambda pool: StreamOptionsSupport(self.redis, pool))
        object.__setattr__(self, "stream_options", support)
        object.__setattr__(self, "limit_verdicts", PerPool(lambda pool: LimitVerdict(self.redis, pool)))
        object.__setattr__(self, "count_request", CountRequest(self.redis))
