"""The process of the token refresher: forked by the supervisor, ended by it after the last worker process."""

import logging
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from redis import Redis
from redis.exceptions import RedisError

from shared import clock, keys
from shared.background import keep_running
from shared.credentials.token_origin import compute_token_origin
from shared.credentials.unsealing import Unsealer, load_unsealer
from shared.heartbeat import Heartbeat
from shared.observability.counters import Counters
from shared.redis_connection.client import connect, decode_hash
from shared.redis_connection.data_version import stamp_data
from shared.redis_connection.primary_finder import start_watching
from shared.redis_connection.retry import retry_forever, wait_for_redis
from shared.settings.schema import Settings
from workers.credentials.token_breaker import TokenBreaker
from workers.credentials.token_endpoint.client import TokenEndpoint
from workers.credentials.token_store import TokenStore
from workers.forked_process import run_forked
from workers.freeze_watch import BEAT_SECONDS
from workers.process_slot import RETIRE_SIGNAL, SpawnInfo
from workers.refresher.credential_refresh import RefresherServices
from workers.refresher.refresh_lock import REFRESHER_TIMEOUT_SECONDS, RefreshLock
from workers.refresher.server import RefresherServer
from workers.refresher.token_refresher import TokenRefresher
from workers.sign_in.accounts import Accounts
from workers.sign_in.pool_provider import MAX_CONCURRENT_REQUESTS, build_authorization_servers
from workers.sign_in.runner import SignInRunner

log = logging.getLogger("farm.tokens")
#: What `ps -o comm` and `top` show: at most 15 characters.
PROCESS_NAME = "farm-refresher"
#: Seconds between two reports, in which the breakers are read as well.
REPORT_INTERVAL_SECONDS = 1.0
#: Seconds between two looks for sign-ins of devices that nobody polls for.
SIGN_IN_INTERVAL_SECONDS = 1.0
#: Seconds between two looks whether the process may end.
END_POLL_SECONDS = 0.1
#: Rotated tokens that wait for the disk or the replicas of Redis at the same time, each on a connection.
MAX_CONCURRENT_STORES = 64


class RefresherProcess:
    """Wires the token refresher, reports it in Redis, ends it."""

    def __init__(self, settings: Settings, unsealer: Unsealer, spawn_info: SpawnInfo) -> None:
        self.id = spawn_info.process_id
        self._settings = settings
        self._spawn_info = spawn_info
        self._redis = connect(settings.redis_url)
        self._counters = Counters()
        self._breakers = {
            pool.name: TokenBreaker(self._redis, pool.name, self.id, self._counters) for pool in settings.pools
        }
        store = TokenStore(
            connect(settings.redis_url, size=MAX_CONCURRENT_STORES),
            unsealer,
            self._counters,
            self._find_binding,
            replicas=settings.wait_replicas,
            refresher_id=self.id,
        )
        endpoints, providers = build_authorization_servers(settings.pools)
        accounts = Accounts(self._redis, store, lambda pool, token: providers[pool].fetch_identity(token))
        self._refresher = TokenRefresher(self._build_services(store, endpoints, accounts))
        self._sign_ins = SignInRunner(
            settings, self._redis, unsealer, accounts, providers, self.id, spawn_info.predecessor
        )
        self._server = RefresherServer(spawn_info.rendezvous, self._refresher)
        self._retiring = Event()

    def _build_services(
        self, store: TokenStore, endpoints: Mapping[str, TokenEndpoint], accounts: Accounts
    ) -> RefresherServices:
        return RefresherServices(
            store,
            RefreshLock(self._redis, self.id),
            endpoints,
            self._breakers,
            self._counters,
            BoundedSemaphore(MAX_CONCURRENT_REQUESTS),
            self._settings.refusal_patience,
            accounts.learn,
        )

    def _find_binding(self, pool: str) -> tuple[str, str]:
        settings = self._settings.pool(pool)
        return settings.credential_kind, compute_token_origin(settings)

    def run(self) -> None:
        """Runs until RETIRE_SIGNAL or the supervisor's death, and until no worker process is connected any more.

        SIGTERM is ignored: systemd sends it to all processes at once, and the worker processes still need this one.
        """
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, signal.SIG_IGN)
        gevent.signal_handler(RETIRE_SIGNAL, self._retiring.set)
        start_watching(self._settings.redis_url)
        self._report()
        background = [
            gevent.spawn(keep_running, task) for task in (self._server.run, self._report_forever, self._poll_forever)
        ]
        self._spawn_info.ready.set()
        log.info("token refresher is up", extra={"action": "refresher_started", "worker_process": self.id})
        while self._is_needed():
            self._retiring.wait(REPORT_INTERVAL_SECONDS)
            if self._is_ending():
                self._sign_ins.hand_over_polls()
                gevent.sleep(END_POLL_SECONDS)
        gevent.killall(background)
        with suppress(RedisError):
            self._redis.zrem(keys.REFRESHERS, self.id)
            self._counters.flush(self._redis)
        log.info("token refresher is down", extra={"action": "refresher_stopped", "worker_process": self.id})

    def _is_ending(self) -> bool:
        is_orphan = os.getppid() != self._spawn_info.parent_pid
        return is_orphan or self._retiring.is_set()

    def _is_needed(self) -> bool:
        is_busy = self._server.connection_count > 0 or len(self._refresher) > 0 or self._sign_ins.poll_count > 0
        return is_busy or not self._is_ending()

    def _poll_forever(self) -> None:
        while not self._is_ending():
            with suppress(RedisError):
                self._sign_ins.start_polls()
            gevent.sleep(SIGN_IN_INTERVAL_SECONDS)

    def _report_forever(self) -> None:
        while True:
            self._report()
            gevent.sleep(REPORT_INTERVAL_SECONDS)

    def _report(self) -> None:
        """Reports this process, reads the breakers and Redis's clock, and sends the counts."""
        try:
            self._exchange_reports()
            self._counters.flush(self._redis)
        except RedisError as error:
            log.warning("not reported: %s", error, extra={"action": "redis_lost", "worker_process": self.id})

    def _exchange_reports(self) -> None:
        now = clock.now()
        with self._redis.pipeline(transaction=False) as pipe:
            if self._spawn_info.predecessor:
                pipe.zrem(keys.REFRESHERS, self._spawn_info.predecessor)
            pipe.zadd(keys.REFRESHERS, {self.id: now})
            pipe.zremrangebyscore(keys.REFRESHERS, "-inf", now - REFRESHER_TIMEOUT_SECONDS)
            pipe.time()
            count = len(pipe)
            for pool in self._breakers:
                pipe.hgetall(keys.token_breaker(pool))
            sent_at, asked_at = time.monotonic(), time.time()
            replies = pipe.execute()
        clock.compare(replies[count - 1], asked_at)
        for breaker, record in zip(self._breakers.values(), replies[count:], strict=True):
            breaker.sync(decode_hash(record), sent_at)


def name_process() -> None:
    """Tells the process from the worker processes, whose command line it shares (Linux)."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(PROCESS_NAME)


def beat_forever(heartbeat: Heartbeat) -> None:
    """Shows the supervisor that the event loop runs."""
    while True:
        heartbeat.beat()
        gevent.sleep(BEAT_SECONDS)


def prepare_store(redis: Redis, unsealer: Unsealer) -> None:
    """Idempotent. Raises DataTooNew before it writes anything, RedisError."""
    stamp_data(redis)
    unsealer.ensure_sealing_key(redis)


def start_refresher(settings: Settings, spawn_info: SpawnInfo) -> RefresherProcess:
    """Waits for Redis. Raises FarmError."""
    gevent.spawn(beat_forever, spawn_info.heartbeat)
    name_process()
    unsealer = load_unsealer(settings)
    redis = connect(settings.redis_url)
    wait_for_redis(redis)
    retry_forever(lambda: prepare_store(redis, unsealer), "the token refresher can't start yet")
    return RefresherProcess(settings, unsealer, spawn_info)


def serve_refresher(settings: Settings, spawn_info: SpawnInfo) -> int:
    """Runs the token refresher; returns its exit code."""
    return run_forked(settings, lambda: start_refresher(settings, spawn_info))
