"""The services of one front, built once per process."""

import logging
import time
from dataclasses import dataclass
from typing import Any

import gevent
from flask import current_app
from redis import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.api_keys.admin_login import AdminLogin
from shared.api_keys.admin_sessions import AdminSessions
from shared.api_keys.admin_tokens import AdminTokens
from shared.api_keys.store import ApiKeys
from shared.background import keep_running
from shared.files.file_store import Files
from shared.files.opening import open_watched_files
from shared.observability.audit_log import AuditLog, store_configured_token
from shared.observability.counters import Counters
from shared.observability.refusals import record_refusals
from shared.observability.request_log import RequestLog
from shared.observability.usage import UsageSums
from shared.protocol.credential_operations import CredentialOperations
from shared.protocol.relay_queue import RelayQueue
from shared.redis_connection.auto_pipeline import AutoPipeline
from shared.redis_connection.client import connect, create_dedicated_pool
from shared.redis_connection.primary_finder import start_watching
from shared.redis_connection.retry import retry_forever
from shared.settings.schema import Settings
from web.access.authenticator import Authenticator
from web.access.private_callers import PrivateCallers
from web.batches.batch_runner import BatchRunner
from web.batches.lines.line_request import LineRequests
from web.batches.services import BatchServices, build_batch_services
from web.files.retention import FileRetention
from web.live_feed import LiveFeed
from web.model_lists import ModelLists
from web.replay.answers.answer_store import AnswerStore
from web.replay.runs import Runs
from web.reply.hub import Hub
from web.request.body_memory import CAPACITY_BYTES, BodyMemory
from web.request.capacity.availability import Availability
from web.request.capacity.drain_rate import DrainRate
from web.request.capacity.overload import Overload
from web.request.capacity.pool_selection import PoolSelector
from web.request.capacity.rest_monitor import RestMonitor
from web.request.log_buffer import RequestLogBuffer
from web.request.pending import WORKER_MARGIN_SECONDS, RequestServices
from web.request.shutdown import Shutdown, shutting_down_error
from web.server.admin_networks import AdminNetworks
from web.server.client_address import TrustedProxies
from web.server.connection_limit import ConnectionLimit
from web.single_flight_cache import SingleFlightCache

log = logging.getLogger("farm.web")
EXTENSION = "farm"
#: Seconds between two heartbeats.
HEARTBEAT_INTERVAL_SECONDS = 2.0
#: Operators' operations that may run at the same time; each holds a connection to Redis for up to a minute.
MAX_OPERATIONS = 64


@dataclass
class WebServices:
    """Everything a route needs."""

    settings: Settings
    redis: Redis
    pool_selector: PoolSelector
    availability: Availability
    hub: Hub
    request_services: RequestServices
    model_lists: ModelLists
    #: Tokens of an API key (id) between two times; of several queries at once one is carried out.
    key_tokens: SingleFlightCache[tuple[str, float, float], int]
    drain_rate: DrainRate
    authenticator: Authenticator
    operations: CredentialOperations
    admin_tokens: AdminTokens
    admin_login: AdminLogin
    admin_sessions: AdminSessions
    audit_log: AuditLog
    trusted_proxies: TrustedProxies
    admin_networks: AdminNetworks
    connections: ConnectionLimit
    counters: Counters
    log_buffer: RequestLogBuffer
    body_memory: BodyMemory
    files: Files
    #: For uploads on their way to the store.
    file_memory: BodyMemory
    runs: Runs
    batches: BatchServices
    batch_runner: BatchRunner
    live_feed: LiveFeed[Any]
    started_at: float

    def start(self) -> None:
        """Starts the background greenlets; called once, in the process that serves."""
        start_watching(self.settings.redis_url)
        self._send_heartbeat()
        self.hub.start()
        gevent.spawn(keep_running, self._run_heartbeat)
        gevent.spawn(keep_running, self.drain_rate.run)
        gevent.spawn(keep_running, RestMonitor(self.availability, self.request_services.queued).run)
        gevent.spawn(keep_running, self.runs.followers.run_sweeps)
        gevent.spawn(keep_running, self._run_flush)
        gevent.spawn(keep_running, self.batch_runner.run)
        gevent.spawn(keep_running, FileRetention(self.redis, self.files, self.hub.front_id).run)
        gevent.spawn(self._prepare_logins)

    def _prepare_logins(self) -> None:
        """Stores FARM_ADMIN_TOKEN, which a reload may have changed; waits while Redis is away."""
        configured = self.settings.admin_token
        retry_forever(lambda: self.redis.delete(keys.OBSOLETE_SESSION_SECRET), "can't prepare logins yet")
        if configured:
            retry_forever(lambda: store_configured_token(self.redis, configured), "can't store FARM_ADMIN_TOKEN yet")

    def _run_heartbeat(self) -> None:
        while True:
            gevent.sleep(HEARTBEAT_INTERVAL_SECONDS)
            self._send_heartbeat()

    def _send_heartbeat(self) -> None:
        try:
            if self.hub.is_listening:
                self.hub.send_heartbeat()
                self.redis.hset(keys.FRONT_BODY_BYTES, self.hub.front_id, self.body_memory.reserved)
        except RedisError as error:
            log.warning("can't send the heartbeat: %s", error, extra={"action": "redis_lost"})

    def _run_flush(self) -> None:
        while True:
            gevent.sleep(1.0)
            self.flush()

    @property
    def is_ready(self) -> bool:
        """Whether the front can serve requests."""
        return self.hub.is_listening

    @property
    def drain_seconds(self) -> float:
        """Seconds that running requests may take when the front is stopped."""
        return self.settings.drain

    @property
    def retire_seconds(self) -> float:
        """Seconds that running requests may take when other fronts take over: they have ended by then."""
        return self.settings.max_total_timeout + 2 * WORKER_MARGIN_SECONDS

    def end_live_pages(self) -> None:
        """Ends the streams of the console's live pages, which would never end by themselves."""
        self.live_feed.close()

    def hand_over_batches(self) -> None:
        """Begins no further line of a batch: other fronts do. Those that run may end."""
        self.batch_runner.stop()

    @property
    def has_detached_work(self) -> bool:
        """Whether a line of a batch runs, or a request whose callers have left or are at other fronts."""
        return self.batch_runner.is_busy or bool(self.runs.list_running())

    def begin_shutdown(self) -> None:
        """Replies to the requests that wait in the queue, and to new ones, that the farm is shutting down."""
        self.request_services.shutdown.begin()

    def end_requests(self) -> None:
        """Ends all requests with an error."""
        self.request_services.shutdown.end_all()
        self.runs.end_all(shutting_down_error())

    def shut_down(self) -> None:
        """Called when the last request has ended."""
        self.flush()
        try:
            self.hub.leave()
            self.runs.shut_down()
            self.redis.hdel(keys.FRONT_BODY_BYTES, self.hub.front_id)
            self.redis.hdel(keys.FRONT_LOADS, self.hub.front_id)
        except RedisError as error:
            log.warning("can't deregister the front: %s", error, extra={"action": "redis_lost"})

    def flush(self) -> None:
        """Writes buffered counters and log entries to Redis; keeps them for the next flush if Redis is down."""
        try:
            self.counters.flush(self.redis)
            self.log_buffer.flush()
            if refused := self.log_buffer.take_refused():
                record_refusals(self.redis, refused)
        except RedisError as error:
            log.warning("can't flush counters and log entries, will retry: %s", error, extra={"action": "redis_lost"})


def build_services(settings: Settings) -> WebServices:
    """Builds the services; opens no connection yet."""
    redis = connect(settings.redis_url)
    names = settings.pool_names
    trusted_proxies = TrustedProxies(settings.trusted_proxies)
    max_bytes = max(settings.max_queue_bytes, settings.max_body)
    queue = RelayQueue(redis, settings.max_queue, max_bytes, settings.queue_timeout)
    hub = Hub(redis, create_dedicated_pool(settings.redis_url), queue.find_vanished, queue.cancel)
    operations = CredentialOperations(connect(settings.redis_url, size=MAX_OPERATIONS))
    availability, drain_rate = Availability(redis), DrainRate(redis, names)
    overload, log_buffer = Overload(availability, drain_rate), RequestLogBuffer(RequestLog(redis))
    counters = Counters()
    request_services = RequestServices(
        queue=queue,
        hub=hub,
        overload=overload,
        availability=availability,
        log_buffer=log_buffer,
        shutdown=Shutdown(hub),
        queue_timeout=settings.queue_timeout,
        cancels_on_disconnect=settings.on_disconnect == "cancel",
    )
    pool_selector, files = PoolSelector(settings, availability, overload), open_watched_files(settings, redis)
    body_memory = BodyMemory(max(CAPACITY_BYTES, 2 * settings.max_body))
    runs = Runs(redis, AnswerStore(redis, hub.front_id, settings.cache_bytes), hub, log_buffer, counters)
    line_requests = LineRequests(request_services, pool_selector, counters, body_memory, runs)
    batches = build_batch_services(settings, redis, files, line_requests)
    return WebServices(
        settings=settings,
        redis=redis,
        pool_selector=pool_selector,
        availability=availability,
        hub=hub,
        request_services=request_services,
        model_lists=ModelLists(redis, request_services),
        key_tokens=SingleFlightCache(lambda query: UsageSums(redis).sum_key_tokens(*query)),
        drain_rate=drain_rate,
        authenticator=Authenticator(
            ApiKeys(redis, AutoPipeline(redis)), PrivateCallers(redis, settings.pools, operations)
        ),
        operations=operations,
        admin_tokens=AdminTokens(redis),
        admin_login=AdminLogin(redis),
        admin_sessions=AdminSessions(redis),
        audit_log=AuditLog(redis),
        trusted_proxies=trusted_proxies,
        admin_networks=AdminNetworks(settings.admin_networks, trusted_proxies),
        connections=ConnectionLimit(settings.max_connections_per_address, trusted_proxies),
        counters=counters,
        log_buffer=log_buffer,
        runs=runs,
        body_memory=body_memory,
        files=files,
        file_memory=BodyMemory(CAPACITY_BYTES),
        batches=batches,
        batch_runner=BatchRunner(batches),
        live_feed=LiveFeed(),
        started_at=time.time(),
    )


def services() -> WebServices:
    web_services = current_app.extensions[EXTENSION]
    assert isinstance(web_services, WebServices)
    return web_services
