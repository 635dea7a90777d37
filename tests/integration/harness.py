"""A worker with its queue, its lease and a simulator, in this process, and the front's side of the queue."""

import time
from collections import Counter

import gevent
from gevent.lock import BoundedSemaphore
from redis import Redis

from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.observability.counters import Counters
from shared.protocol.messages import Frame, FrameKind
from shared.protocol.relay_queue import RelayQueue
from shared.redis_connection.auto_pipeline import AutoPipeline
from shared.redis_connection.client import create_dedicated_pool
from shared.settings.schema import PoolSettings, Settings
from tests.integration.shared.protocol.test_relay_queue import request
from tests.upstream import Upstream, first_refresh_tokens
from tests.waiting import eventually
from web.reply.hub import Hub
from web.reply.mailbox import Mailbox
from workers.attempt.cancel_scope import DeadlineMonitor
from workers.credentials.circuit_breaker import CircuitBreaker
from workers.credentials.leases import Leases
from workers.credentials.token_store import TokenStore
from workers.jobs.rq_bookkeeping import Bookkeeping
from workers.per_pool import PerPool
from workers.reply.outbox import Outbox
from workers.reply.publisher import Publisher
from workers.reply.stream_registry import StreamRegistry
from workers.upstream.client import UpstreamRoute, create_shared_session
from workers.worker.leased_credential import LeasedCredential
from workers.worker.rq_worker import FarmWorker, spawn_worker
from workers.worker.services import WorkerServices

BODY = b'{"model": "m", "messages": [{"role": "user", "content": "Hello"}]}'


class Workshop:
    """A worker that runs, and the front's side of the queue."""

    def __init__(self, redis: Redis, redis_url: str, opener: Unsealer, upstream: Upstream, **settings) -> None:
        self.redis = redis
        self.upstream = upstream
        pool = {"upstream_url": upstream.url, "token_url": upstream.token_url, **settings.pop("pool", {})}
        self.pool = PoolSettings(**pool)
        self.settings = Settings(**{"max_attempts": 2, "first_byte_timeout": 1.0, "idle_timeout": 1.0} | settings)
        self.credentials = Credentials(redis)
        self.id, _ = self.credentials.add("default", first_refresh_tokens(1)[0])
        (self.lease,) = Leases(redis, "here").claim("default", [self.id], 1)
        connections, counters, outbox = create_dedicated_pool(redis_url), Counters(), Outbox()
        pipeline = AutoPipeline(redis, eager=True, piggyback=outbox.take_batch)
        publisher = Publisher(outbox, pipeline)
        self.suspended = False
        self.services = WorkerServices(
            settings=self.settings,
            redis=redis,
            connections=connections,
            streams=StreamRegistry(outbox, counters),
            deadlines=DeadlineMonitor(),
            counters=counters,
            token_store=TokenStore(redis, opener),
            breakers=PerPool(lambda pool: CircuitBreaker(redis, pool, "here", counters)),
            worker_counts=Counter({self.pool.name: 1}),
            refresh_limit=BoundedSemaphore(4),
            token_sessions={"default": create_shared_session(upstream.token_url, 4)},
            routes=PerPool(lambda _: UpstreamRoute(self.pool.upstream_url)),
            set_state=self.credentials.set_state,  # type: ignore[arg-type]
            is_suspended=lambda: self.suspended,
        )
        self.hub = Hub(redis, connections, lambda _: set(), lambda *_: None)
        self.queue = RelayQueue(redis, 100)
        books = Bookkeeping(redis, "default", pipeline)
        self.worker = FarmWorker(LeasedCredential(self.lease, self.pool, self.services), books)
        self.ended = False
        endless = (publisher.run, self.services.deadlines.run, self.hub._listen)
        self.greenlets = [gevent.spawn(work) for work in endless]
        self.greenlet = spawn_worker(self.worker, self._end)

    def _end(self, worker: FarmWorker) -> None:
        self.ended = True

    def ask(self, request_id: str = "req_1", body: bytes = BODY, **changes) -> Mailbox:
        mailbox = self.hub.open(request_id)
        self.queue.enqueue(request(request_id, channel=self.hub.channel(request_id), **changes), body)
        return mailbox

    def state(self) -> tuple[str, str]:
        found = self.credentials.get(self.id, ["default"])
        return found.state, found.reason

    def close(self) -> None:
        self.worker.stop()
        eventually(self._is_home)
        gevent.killall(self.greenlets)

    def _is_home(self) -> bool:
        """Whether the worker has ended; one that has only just begun to wait is sent home again."""
        if self.worker.blocking_pop.client_id:
            self.redis.client_unblock(self.worker.blocking_pop.client_id)
        return self.ended


def answer(mailbox: Mailbox, within: float = 10.0) -> list[Frame]:
    frames: list[Frame] = []
    until = time.monotonic() + within
    while not frames or frames[-1].kind not in (FrameKind.END, FrameKind.FAILURE):
        assert time.monotonic() < until, "the answer does not end"
        frames += mailbox.get(1)
    return frames
