"""A running worker with its queue, lease and simulator, and a front's hub, all in this process."""

import json
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import gevent
from redis import Redis

from shared import keys
from shared.credentials.importing.entries import read_entries
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.observability.counters import Counters
from shared.protocol.messages import Frame, FrameKind
from shared.protocol.relay_queue import RelayQueue
from shared.redis_connection.auto_pipeline import AutoPipeline
from shared.redis_connection.client import create_dedicated_pool
from shared.settings.schema import PoolSettings, Settings
from simulator.accounts import Accounts
from simulator.token_endpoint.credential_kinds import list_secrets
from tests import internals
from tests.builders import build_request
from tests.token_refresher import build_refresher
from tests.upstream import Upstream
from tests.waiting import eventually
from web.reply.hub import Hub
from web.reply.mailbox import Mailbox
from workers.attempt.cancel_scope import DeadlineMonitor
from workers.credentials.access_token import RefreshServices
from workers.credentials.circuit_breaker import CircuitBreaker
from workers.credentials.leases import Lease, Leases
from workers.credentials.token_breaker import TokenBreaker
from workers.credentials.token_endpoint.client import TokenEndpoint
from workers.credentials.token_store import TokenStore
from workers.jobs.rq_bookkeeping import Bookkeeping
from workers.per_pool import PerPool
from workers.process.command_listener import CommandListener
from workers.reply.outbox import Outbox
from workers.reply.publisher import Publisher
from workers.reply.stream_registry import StreamRegistry
from workers.upstream.client import UpstreamRoute, create_shared_session
from workers.worker.leased_credential import LeasedCredential
from workers.worker.rq_worker import FarmWorker, spawn_worker
from workers.worker.services import WorkerServices
from workers.worker.suspension import Suspension

CHAT_BODY = b'{"model": "m", "messages": [{"role": "user", "content": "Hello"}]}'


class WorkerHarness:
    """A worker that takes jobs, and a hub that receives its replies."""

    def __init__(
        self,
        redis: Redis,
        redis_url: str,
        unsealer: Unsealer,
        upstream: Upstream,
        pool: Mapping[str, Any] | None = None,
        credentials: int = 1,
        **settings: Any,
    ) -> None:
        """`pool` and `settings` replace the harness's own. `credentials`: how many there are, each with a worker."""
        self.redis = redis
        self.upstream = upstream
        self.pool = PoolSettings(**{"upstream_url": upstream.url, "token_url": upstream.token_url, **(pool or {})})
        self.settings = Settings(**{"max_attempts": 2, "first_byte_timeout": 1.0, "idle_timeout": 1.0} | settings)
        self.credentials = Credentials(redis)
        kind = self.pool.credential_kind
        entries = read_entries(list_secrets(Accounts(credentials), kind, upstream.token_url), kind)
        ids = [self.credentials.add("default", entry.secret, kind=kind)[0] for entry in entries]
        leases = Leases(redis, "here").claim("default", ids, credentials)
        self.credential_id, self.lease = ids[0], leases[0]
        if credentials > 1:
            hold_forever(redis, leases)
        connections, counters, outbox = create_dedicated_pool(redis_url), Counters(), Outbox()
        pipeline = AutoPipeline(redis, eager=True, piggyback=outbox.take_batch)
        publisher = Publisher(outbox, pipeline)
        worker_counts = Counter({self.pool.name: credentials})
        store = TokenStore(redis, unsealer, counters, replicas=self.settings.wait_replicas)
        endpoint = TokenEndpoint(self.pool, create_shared_session(upstream.token_url, 4))
        breaker = TokenBreaker(redis, "default", "here", counters)
        refresher = build_refresher(redis, store, endpoint, breaker, counters, self.settings.refusal_patience)
        self.services = WorkerServices(
            settings=self.settings,
            redis=redis,
            connections=connections,
            streams=StreamRegistry(outbox, counters),
            deadlines=DeadlineMonitor(),
            counters=counters,
            refreshes=RefreshServices(store, refresher, worker_counts, counters, self.settings.refusal_patience),
            breakers=PerPool(lambda pool: CircuitBreaker(redis, pool, "here", counters)),
            token_breakers=PerPool(lambda _: breaker),
            worker_counts=worker_counts,
            routes=PerPool(lambda _: UpstreamRoute(self.pool.upstream_url)),
            set_state=self.credentials.set_state,  # type: ignore[arg-type]
            suspension=Suspension(),
        )
        self.hub = Hub(redis, connections, lambda _: set(), lambda *_: None)
        self.queue = RelayQueue(redis, 100)
        bookkeeping = Bookkeeping(redis, "default", pipeline)
        self.workers = [FarmWorker(LeasedCredential(lease, self.pool, self.services), bookkeeping) for lease in leases]
        self.worker = self.workers[0]
        self._greenlets = [gevent.spawn(work) for work in (publisher.run, self.services.deadlines.run)]
        self._greenlets.append(internals.spawn_listener(self.hub))
        if credentials > 1:
            self._listen_for_commands()
        self._running = [spawn_worker(worker, lambda _: None) for worker in self.workers]

    def _listen_for_commands(self) -> None:
        commands = CommandListener(self.redis, lambda _: None)
        for worker in self.workers:
            commands.add(worker)
        self._greenlets.append(gevent.spawn(commands.run))
        channels = [worker.pubsub_channel_name for worker in self.workers]
        eventually(lambda: all(count for _, count in self.redis.pubsub_numsub(*channels)))

    @property
    def suspended(self) -> bool:
        """Whether `rq suspend` is in force."""
        return self.services.suspension.is_total

    @suspended.setter
    def suspended(self, value: bool) -> None:
        self.services.suspension.is_total = value

    @property
    def has_ended(self) -> bool:
        return self._running[0].dead

    def enqueue(self, request_id: str = "req_1", body: bytes = CHAT_BODY, **changes: Any) -> Mailbox:
        """Enqueues a request as a front does; `changes` replace fields of the request."""
        mailbox = self.hub.open(request_id)
        self.queue.enqueue(build_request(request_id, channel=self.hub.channel(request_id), **changes), body)
        return mailbox

    def wait_until_idle(self) -> int:
        """Waits until the worker is blocked in its pop; returns the id of that connection."""
        return eventually(lambda: self.worker.blocking_pop.client_id)

    def credential_state(self) -> tuple[str, str]:
        """State and reason."""
        credential = self.credentials.get(self.credential_id, ["default"])
        return credential.state, credential.reason

    def count_idle(self) -> int:
        """Workers that wait in Redis for a job."""
        return int(self.redis.zcard(keys.idle_workers("default")))

    def close(self) -> None:
        """Ends everything, and cuts what is still running short."""
        for worker in self.workers:
            worker.stop()
            worker.runner.cancel("client_gone")
        eventually(self._unblock_and_check_end)
        gevent.killall(self._greenlets)

    def _unblock_and_check_end(self) -> bool:
        """Whether all workers have ended; one may have blocked again since the last call, so each is unblocked."""
        for worker in self.workers:
            if worker.blocking_pop.client_id:
                self.redis.client_unblock(worker.blocking_pop.client_id)
        return all(greenlet.dead for greenlet in self._running)


def hold_forever(redis: Redis, leases: list[Lease]) -> None:
    """The leases need no renewal."""
    for lease in leases:
        lease.valid_until = float("inf")
        redis.persist(lease.key)


def streaming_body(**fields: Any) -> bytes:
    """A streamed chat request with these fields."""
    return json.dumps({**json.loads(CHAT_BODY), "stream": True, **fields}).encode()


def collect_frames(mailbox: Mailbox, within: float = 10.0) -> list[Frame]:
    """All frames of a reply, to its end or failure."""
    frames: list[Frame] = []
    until = time.monotonic() + within
    while not frames or frames[-1].kind not in (FrameKind.END, FrameKind.FAILURE):
        assert time.monotonic() < until, "the reply does not end"
        frames += mailbox.get(1)
    return frames
