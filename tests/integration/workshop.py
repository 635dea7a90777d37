"""A worker with its queue, its lease and a simulator, in this process, and the front's side of the queue."""

import time

import gevent
from gevent.lock import BoundedSemaphore
from redis import Redis

from shared.credentials.store import Credentials
from shared.credentials.unsealing import Opener
from shared.observability.counters import Counters
from shared.protocol.messages import Frame, FrameKind
from shared.protocol.relay_queue import RelayQueue
from shared.redis_connection.auto_pipeline import Pipeline
from shared.redis_connection.client import lone_connections
from shared.settings.schema import PoolSettings, Settings
from tests.integration.test_queue import request
from tests.upstream import Upstream, tokens
from tests.waiting import eventually
from web.reply.hub import Hub
from web.reply.mailbox import Mailbox
from workers.attempt.cancel_scope import Watch
from workers.credentials.circuit_breaker import Breaker
from workers.credentials.leases import Leases
from workers.credentials.token_store import TokenStore
from workers.jobs.rq_bookkeeping import Bookkeeping
from workers.per_pool import Made
from workers.reply.publisher import Publisher
from workers.upstream.client import Way, shared_session
from workers.worker.leased_credential import Account
from workers.worker.rq_worker import FarmWorker, spawn
from workers.worker.services import Surroundings

BODY = b'{"model": "m", "messages": [{"role": "user", "content": "Hello"}]}'


class Workshop:
    """A worker that runs, and the front's side of the queue."""

    def __init__(self, redis: Redis, redis_url: str, opener: Opener, upstream: Upstream, **settings) -> None:
        self.redis = redis
        self.upstream = upstream
        pool = {"upstream_url": upstream.url, "token_url": upstream.token_url, **settings.pop("pool", {})}
        self.pool = PoolSettings(**pool)
        self.settings = Settings(**{"max_attempts": 2, "first_byte_timeout": 1.0, "idle_timeout": 1.0} | settings)
        self.credentials = Credentials(redis)
        self.id, _ = self.credentials.add("default", tokens(1)[0])
        (self.lease,) = Leases(redis, "here").claim("default", [self.id], 1)
        connections, counters, pipeline = lone_connections(redis_url), Counters(), Pipeline(redis, eager=True)
        self.suspended = False
        self.around = Surroundings(
            settings=self.settings,
            redis=redis,
            connections=connections,
            publisher=Publisher(pipeline, counters),
            watch=Watch(),
            counters=counters,
            tokens=TokenStore(redis, opener),
            breakers=Made(lambda pool: Breaker(redis, pool, "here", counters)),
            workers=lambda _: 1,
            refreshing=BoundedSemaphore(4),
            token_sessions={"default": shared_session(upstream.token_url, 4)},
            ways=Made(lambda _: Way(self.pool.upstream_url)),
            move=self.credentials.move,  # type: ignore[arg-type]
            suspended=lambda: self.suspended,
        )
        self.hub = Hub(redis, connections, lambda _: set())
        self.queue = RelayQueue(redis, 100)
        books = Bookkeeping(redis, "default", pipeline)
        self.worker = FarmWorker(Account(self.lease, self.pool, self.around), books)
        self.ended = False
        endless = (self.around.publisher.run, self.around.watch.run, self.hub._listen)
        self.greenlets = [gevent.spawn(work) for work in endless]
        self.greenlet = spawn(self.worker, self._end)

    def _end(self, worker: FarmWorker) -> None:
        self.ended = True

    def ask(self, request_id: str = "req_1", body: bytes = BODY, **changes) -> Mailbox:
        mailbox = self.hub.open(request_id)
        self.queue.enqueue(request(request_id, channel=self.hub.channel(request_id), **changes), body)
        return mailbox

    def state(self) -> tuple[str, str]:
        found = self.credentials.find(self.id, ["default"])
        return found.state, found.reason

    def close(self) -> None:
        self.worker.stop()
        eventually(self._is_home)
        gevent.killall(self.greenlets)

    def _is_home(self) -> bool:
        """Whether the worker has ended; one that has only just begun to wait is sent home again."""
        if self.worker.line.client_id:
            self.redis.client_unblock(self.worker.line.client_id)
        return self.ended


def answer(mailbox: Mailbox, within: float = 10.0) -> list[Frame]:
    frames: list[Frame] = []
    until = time.monotonic() + within
    while not frames or frames[-1].kind not in (FrameKind.END, FrameKind.FAILURE):
        assert time.monotonic() < until, "the answer does not end"
        frames += mailbox.get(1)
    return frames
