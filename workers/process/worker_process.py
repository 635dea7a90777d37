"""One worker process: wires its parts, runs the periodic tasks, drains on SIGTERM."""

import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable

import gevent
from gevent.event import Event
from redis.exceptions import RedisError

from shared import names
from shared.background import keep_running
from shared.credentials.activity.activity import ActivityStore
from shared.credentials.private import PrivateCredentials
from shared.credentials.store import Credentials
from shared.credentials.token_origin import TokenOrigins, compute_token_origin
from shared.credentials.unsealing import Unsealer
from shared.observability.counters import Counters
from shared.observability.event_log import EventBuffer
from shared.observability.samples import Samples
from shared.redis_connection.auto_pipeline import AutoPipeline
from shared.redis_connection.client import connect, create_dedicated_pool
from shared.redis_connection.in_flight_limit import InFlightLimit
from shared.redis_connection.primary_finder import find_confirmation, start_watching
from shared.settings.schema import PoolSettings, Settings
from workers.alerts.watch import INTERVAL_SECONDS as ALERT_INTERVAL_SECONDS
from workers.alerts.watch import AlertWatch
from workers.attempt.cancel_scope import DeadlineMonitor
from workers.credentials.access_token import RefreshServices
from workers.credentials.circuit_breaker import CircuitBreaker
from workers.credentials.durability import PROBE_INTERVAL_SECONDS
from workers.credentials.leases import (
    RENEW_INTERVAL_SECONDS,
    RENEW_RETRY_SECONDS,
    RENEW_TIMEOUT_SECONDS,
    Leases,
)
from workers.credentials.token_breaker import TokenBreaker
from workers.credentials.token_store import TokenStore
from workers.jobs.pool_queues import BusyPools, PoolQueues
from workers.per_pool import PerPool
from workers.process.census import Census
from workers.process.command_listener import CommandListener
from workers.process.front_monitor import FrontMonitor
from workers.process.membership import Membership
from workers.process.operation_inbox import OperationInbox
from workers.process.usage_rollup import UsageRollup
from workers.process.worker_set import WorkerSet
from workers.process_slot import RETIRE_SIGNAL, SpawnInfo
from workers.refresher.client import ConnectionLost, RefresherClient
from workers.reply.outbox import Outbox
from workers.reply.publisher import Publisher
from workers.reply.stream_registry import StreamRegistry
from workers.sign_in.accounts import Accounts
from workers.sign_in.pool_provider import build_authorization_servers
from workers.sign_in.runner import SignInRunner
from workers.upstream.client import UpstreamRoute
from workers.upstream.pool_network import build_route
from workers.worker.activity_recorder import FLUSH_INTERVAL_SECONDS
from workers.worker.credential_states import CredentialStates
from workers.worker.services import WorkerServices

log = logging.getLogger("farm.process")
#: Seconds between two reconciliations of the workers with the credentials.
RECONCILE_INTERVAL_SECONDS = 1.0
#: The same for a process that has just started: others may be about to leave their credentials to it, and no account
#: should be idle meanwhile; and for how many seconds that goes.
FIRST_RECONCILE_INTERVAL_SECONDS, FIRST_RECONCILES_SECONDS = 0.2, 10.0
#: Seconds between two recoveries of orphaned jobs.
RECOVER_INTERVAL_SECONDS = 2.0
#: Seconds between two writes of what API keys got.
KEY_SECONDS_INTERVAL = 5.0
#: Seconds between two checks for dead fronts.
FRONT_CHECK_INTERVAL_SECONDS = 0.5
#: Seconds between two runs of RQ's registry cleaning.
CLEAN_INTERVAL_SECONDS = 60.0
#: Seconds between two roll-ups of the request log, and between two removals of its oldest entries.
ROLL_UP_INTERVAL_SECONDS, TRIM_INTERVAL_SECONDS = 2.0, 30.0
#: Seconds between two writes of what each account's time went into.
ACCOUNT_HOURS_INTERVAL_SECONDS = 60.0
#: Seconds between two searches for idle private credentials.
FORGET_INTERVAL_SECONDS = 5.0
#: Seconds between two comparisons of the credentials with the token endpoints of their pools.
ORIGIN_INTERVAL_SECONDS = 5.0
#: Connections on which tokens are loaded, those of a sign-in stored, and the durability of writes is probed.
TOKEN_STORE_CONNECTIONS = 16
#: Seconds more for the workers that wait for a token refresh; the refresh itself ends without them.
LAST_REFRESH_TIMEOUT_SECONDS = 35.0


class WorkerProcess:
    """Hosts the workers of one OS process."""

    def __init__(self, settings: Settings, unsealer: Unsealer, spawn_info: SpawnInfo) -> None:
        self.id = spawn_info.process_id
        self._spawn_info = spawn_info
        self._settings = settings
        self._redis = connect(settings.redis_url)
        self._counters = Counters()
        self._credentials = Credentials(self._redis)
        self._activity_store = ActivityStore(self._redis)
        self._token_origins = TokenOrigins(self._redis)
        self._pools = settings.pool_names
        self._private_credentials = PrivateCredentials(self._redis)
        self._membership = Membership(self._redis, self.id, settings)
        self._outbox = Outbox()
        # Without a limit, jobs that end together start their successors together, each delayed by the work for all: 100
        # credentials with responses of 0.2 s lost 0.5 % of their time.
        self._pipeline = AutoPipeline(self._redis, eager=True, limit=InFlightLimit(), piggyback=self._outbox.take_batch)
        self._leases = Leases(
            connect(settings.redis_url, size=2, timeout=RENEW_TIMEOUT_SECONDS),
            self.id,
            lambda: find_confirmation(settings.redis_url),
            self._pipeline,
        )
        self._publisher = Publisher(self._outbox, self._pipeline)
        self._queues = PerPool(
            lambda name: PoolQueues(self._redis, self._pipeline, name, settings, self._counters), self._pools
        )
        self._to_recover, self._to_clean = BusyPools(self._redis), BusyPools(self._redis)
        _, providers = build_authorization_servers(settings.pools)
        token_store = TokenStore(
            connect(settings.redis_url, size=TOKEN_STORE_CONNECTIONS),
            unsealer,
            self._counters,
            self._find_binding,
            replicas=settings.wait_replicas,
        )
        accounts = Accounts(self._redis, token_store)
        sign_ins = SignInRunner(settings, self._redis, unsealer, accounts, providers, self.id)
        self._refresher = RefresherClient(spawn_info.rendezvous)
        self._services = self._build_services(token_store)
        self._commands = CommandListener(connect(settings.redis_url, size=2), self._services.streams.handle_acks)
        self._workers = WorkerSet(self._services, self._leases, self._membership, self._commands, self._queues)
        self._fronts = FrontMonitor(self._redis, self._all_pools, self._counters, self._workers.cancel_front_requests)
        retention = (settings.request_log_entries, settings.request_log_days, settings.usage_days)
        self._usage_rollup = UsageRollup(self._redis, *retention)
        self._alerts = AlertWatch(self._redis, settings, self.id, self._counters)
        self._operations = OperationInbox(
            connect(settings.redis_url, size=2), self.id, self._workers, sign_ins, self._alerts.test
        )
        self._samples = Samples(self._redis)
        self._events = EventBuffer(self._redis)
        self._census = Census(self._redis, self.id, self._pools, self._counters)
        self._stopping = Event()
        #: Until when running requests may take, by the monotonic clock.
        self._drain_until = float("inf")
        self._was_stopped = False
        #: Whether other processes take over, by a reload or after the supervisor's death.
        self._is_replaced = False
        self._started_at = time.monotonic()

    def _build_services(self, token_store: TokenStore) -> WorkerServices:
        connections = create_dedicated_pool(self._settings.redis_url)
        worker_counts: Counter[str] = Counter()
        return WorkerServices(
            settings=self._settings,
            redis=self._redis,
            connections=connections,
            streams=StreamRegistry(self._outbox, self._counters),
            deadlines=DeadlineMonitor(),
            counters=self._counters,
            refreshes=RefreshServices(
                token_store,
                self._refresher,
                worker_counts,
                self._counters,
                self._settings.refusal_patience,
            ),
            breakers=PerPool(lambda name: CircuitBreaker(self._redis, name, self.id, self._counters), self._pools),
            token_breakers=PerPool(lambda name: TokenBreaker(self._redis, name, self.id, self._counters), self._pools),
            worker_counts=worker_counts,
            routes=PerPool(self._build_route),
            set_state=CredentialStates(self._credentials, self._counters).set,
            suspension=self._membership.suspension,
        )

    def _find_binding(self, pool: str) -> tuple[str, str]:
        settings = self._settings.pool(pool)
        return settings.credential_kind, compute_token_origin(settings)

    def _build_route(self, name: str) -> UpstreamRoute:
        pool = self._settings.pool(name)
        return build_route(pool, pool.upstream_url)

    def run(self) -> None:
        """Runs until a signal or the supervisor's death; then lets running requests end and releases the leases."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(signum, self._stop)
        gevent.signal_handler(RETIRE_SIGNAL, self._retire)
        start_watching(self._settings.redis_url)
        self._events.start()
        loops = (self._publisher.run, self._services.deadlines.run, self._commands.run, self._operations.run)
        background = [gevent.spawn(keep_running, loop) for loop in loops]
        background.append(gevent.spawn(self._renew_leases))
        for seconds, task in self._periodic_tasks():
            background.append(gevent.spawn(self._run_every, seconds, task))
        self._try(lambda: self._for_each_queue(PoolQueues.register))
        self._try(self._reconcile_origins)
        self._try(self._services.refreshes.store.durable_writer.check)
        background.append(gevent.spawn(self._try, self._probe_durability))
        self._await_refresher()
        log.info("worker process is up", extra={"action": "process_started", "worker_process": self.id})
        if self._spawn_info.predecessor:
            self._try(self._reclaim_predecessor)
        while not self._stopping.is_set() and os.getppid() == self._spawn_info.parent_pid:
            if self._try(self._workers.reconcile):
                self._spawn_info.ready.set()
            is_new = time.monotonic() < self._started_at + FIRST_RECONCILES_SECONDS
            self._stopping.wait(FIRST_RECONCILE_INTERVAL_SECONDS if is_new else RECONCILE_INTERVAL_SECONDS)
        if not self._stopping.is_set():
            self._retire()
        self._drain()
        gevent.killall(background)
        log.info("worker process is down", extra={"action": "process_stopped", "worker_process": self.id})
        self._try(self._events.write)
        self._try(self._census.hours.flush)

    def _await_refresher(self) -> None:
        """So that no worker starts before it; without it they serve with the access tokens that they find."""
        try:
            self._refresher.connect()
        except (ConnectionLost, OSError) as error:
            extra = {"action": "refresher_down", "worker_process": self.id}
            log.error("the token refresher does not take the connection: %s", error, extra=extra)

    def _retire(self) -> None:
        """Other processes take over: running requests may take as long as they need."""
        self._is_replaced = True
        self._end_within(self._settings.max_total_timeout)

    def _stop(self) -> None:
        """Running requests get the drain time; none of it is left when the signal comes again."""
        self._end_within(0.0 if self._was_stopped else self._settings.drain)
        self._was_stopped = True

    def _end_within(self, seconds: float) -> None:
        self._drain_until = min(self._drain_until, time.monotonic() + seconds)
        self._stopping.set()

    def _periodic_tasks(self) -> list[tuple[float, Callable[[], object]]]:
        return [
            (1.0, self._workers.heartbeat_oldest),
            (1.0, lambda: self._census.take(self._workers)),
            (RECOVER_INTERVAL_SECONDS, lambda: self._for_each_busy(self._to_recover, PoolQueues.recover_orphans)),
            (CLEAN_INTERVAL_SECONDS, lambda: self._for_each_busy(self._to_clean, PoolQueues.clean_registries)),
            (FRONT_CHECK_INTERVAL_SECONDS, self._fronts.check),
            (0.5, self._workers.refresh_due_tokens),
            (1.0, lambda: self._counters.flush(self._redis)),
            (1.0, lambda: self._services.in_flight.flush(self._redis)),
            (ACCOUNT_HOURS_INTERVAL_SECONDS, self._census.hours.flush),
            (1.0, self._events.write),
            (KEY_SECONDS_INTERVAL, self._write_key_seconds),
            (1.0, lambda: self._samples.take(self._pools)),
            (ALERT_INTERVAL_SECONDS, self._alerts.look),
            (FLUSH_INTERVAL_SECONDS, lambda: self._services.activity.flush(self._activity_store)),
            (ROLL_UP_INTERVAL_SECONDS, self._usage_rollup.roll_up),
            (TRIM_INTERVAL_SECONDS, self._usage_rollup.trim),
            (FORGET_INTERVAL_SECONDS, self._forget_idle_credentials),
            (ORIGIN_INTERVAL_SECONDS, self._reconcile_origins),
            (PROBE_INTERVAL_SECONDS, self._probe_durability),
            (5.0, self._services.streams.forget_expired),
        ]

    def _write_key_seconds(self) -> None:
        self._services.key_seconds.flush(self._redis)

    def _probe_durability(self) -> None:
        self._services.refreshes.store.durable_writer.probe(self.id)

    def _renew_leases(self) -> None:
        """Renews forever. A failed renewal is retried soon, because the leases go on to expire."""
        while True:
            gevent.sleep(RENEW_INTERVAL_SECONDS)
            while not self._try(self._workers.renew_leases):
                gevent.sleep(RENEW_RETRY_SECONDS)

    def _run_every(self, seconds: float, task: Callable[[], object]) -> None:
        while True:
            gevent.sleep(seconds)
            self._try(task)

    def _try(self, task: Callable[[], object]) -> bool:
        """Runs a task and logs its failure; returns whether it succeeded."""
        try:
            task()
            return True
        except RedisError as error:
            log.warning(
                "%s failed: %s", task.__name__, error, extra={"action": "redis_lost", "worker_process": self.id}
            )
        except Exception:
            log.exception("%s failed", task.__name__, extra={"action": "chore_failed", "worker_process": self.id})
        return False

    def _for_each_queue(self, task: Callable[[PoolQueues], None]) -> None:
        for queues in list(self._queues.values()):
            task(queues)

    def _for_each_busy(self, busy: BusyPools, task: Callable[[PoolQueues], None]) -> None:
        """Runs the task for the configured pools, and for the private credentials that have jobs."""
        private = [queues for name, queues in self._queues.items() if names.is_private(name)]
        idle = set(private) - set(busy.find(private))
        self._for_each_queue(lambda queues: None if queues in idle else task(queues))

    def _all_pools(self) -> list[str]:
        """The configured pools and those of all private credentials, even of pools that are configured no more."""
        return [*self._pools, *self._private_credentials.list_pools()]

    def _reconcile_origins(self) -> None:
        """Takes credentials of other token endpoints out of service, and brings back those whose endpoint is back."""
        if self._stopping.is_set():
            return  # After a reload the settings of this process may be the former ones.
        pools = [self._settings.pool(name) for name in self._all_pools() if self._settings.has_pool(name)]
        for pool, (foreign, active) in self._token_origins.reconcile(pools).items():
            extra = {"action": "credential_foreign", "pool": names.configured_pool(pool)}
            if foreign:
                message = (
                    "%d credentials belong to another token endpoint and are left alone; `./farm credentials list`"
                )
                log.error(message, foreign, extra=extra)
            if active:
                log.info("%d credentials have their token endpoint back", active, extra=extra)

    def _forget_idle_credentials(self) -> None:
        """Removes private credentials that have been unused for their pool's `private_idle` seconds."""
        idle = {pool.name: pool.private_idle for pool in self._settings.pools}
        for name in self._private_credentials.forget_idle(
            lambda pool: idle.get(names.configured_pool(pool), PoolSettings.private_idle)
        ):
            extra = {"action": "private_forgotten", "pool": names.configured_pool(name), "reason": "idle"}
            log.info("an idle private credential was removed", extra=extra)

    def _reclaim_predecessor(self) -> None:
        """Frees the leases of the dead process that this one replaces, without waiting for them to expire."""
        ids = [credential_id for pool in self._all_pools() for credential_id in self._credentials.get_states(pool)]
        reclaimed = self._leases.release_held_by(self._spawn_info.predecessor, ids)
        self._membership.remove(self._spawn_info.predecessor)
        self._alerts.bury(self._spawn_info.predecessor)
        fields = {"action": "process_buried", "worker_process": self._spawn_info.predecessor, "credentials": reclaimed}
        log.warning("a worker process died; reclaimed its %d leases", len(reclaimed), extra=fields)

    def _drain(self) -> None:
        """1. Retire: others take over. 2. Stop idle workers now, busy ones after their job. 3. Cancel the rest."""
        reports = gevent.spawn(self._report_retiring)
        alerts = gevent.spawn(self._try, self._alerts.stop)
        self._join_workers(lambda: self._drain_until)
        self._workers.cancel_running()
        give_up_at = time.monotonic() + LAST_REFRESH_TIMEOUT_SECONDS
        self._join_workers(lambda: give_up_at)
        reports.kill()
        alerts.join()
        self._try(self._membership.leave)
        self._outbox.wait_until_idle(2.0)
        self._try(lambda: self._counters.flush(self._redis))
        self._try(lambda: self._services.activity.flush(self._activity_store))
        self._try(self._write_key_seconds)
        self._try(self._usage_rollup.roll_up)

    def _report_retiring(self) -> None:
        while True:
            self._try(lambda: self._membership.retire(self._workers, is_replaced=self._is_replaced))
            gevent.sleep(RECONCILE_INTERVAL_SECONDS)

    def _join_workers(self, until: Callable[[], float]) -> None:
        """Stops the workers and waits for them; a signal may change `until`, by the monotonic clock, meanwhile."""
        self._workers.stop()
        while self._workers and time.monotonic() < until():
            # Each time: an operator's operation may have started another worker.
            self._workers.stop()
            self._try(self._workers.wake_idle)
            self._workers.join(0.2)
