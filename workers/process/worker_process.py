"""One worker process: puts its parts together, does its chores in the background, and ends in good order."""

import logging
import os
import signal
import time
from collections.abc import Callable
from typing import cast

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from redis.exceptions import RedisError

from shared import names
from shared.background import keep_running
from shared.credentials.private import PrivateCredentials
from shared.credentials.records import State
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Opener
from shared.observability.counters import Counters
from shared.redis_connection.auto_pipeline import Pipeline
from shared.redis_connection.client import connect, lone_connections
from shared.settings.schema import PoolSettings, Settings
from workers.attempt.cancel_scope import Watch
from workers.credentials.circuit_breaker import Breaker
from workers.credentials.leases import RENEW_EVERY, Leases
from workers.credentials.token_store import TokenStore
from workers.jobs.pool_queues import PoolQueue
from workers.per_pool import Made
from workers.process.command_listener import Control
from workers.process.front_monitor import Fronts
from workers.process.membership import Census
from workers.process.operation_inbox import ErrandDesk
from workers.process.usage_rollup import Ledger
from workers.process.worker_set import Crew
from workers.reply.publisher import Publisher
from workers.supervisor import Birth
from workers.upstream.client import Way, shared_session
from workers.worker.services import Surroundings

log = logging.getLogger("farm.process")
#: Jobs that are begun or ended at once. With more, accounts whose answers come together are asked again together, each
#: late by the work for all: any number of them cost 100 accounts with answers of 0.2 s half a percent of their time.
TURNS = 1
#: Seconds between two looks at what should run here.
LOOK_EVERY = 1.0
#: Seconds after which a renewal of the leases that failed is tried again.
RENEW_AGAIN = 0.3
#: Seconds between two looks at what died workers left in the intermediate queues.
RECOVER_EVERY = 2.0
#: Seconds between two looks for web processes that have died.
FRONTS_EVERY = 0.5
#: Seconds between two rounds of RQ's own cleaning.
CLEAN_EVERY = 60.0
#: Seconds between two times that new entries of the request log are added up, and that old ones are forgotten.
ADD_UP_EVERY, TRIM_EVERY = 2.0, 30.0
#: Seconds between two looks for private credentials that nobody uses any more.
FORGET_EVERY = 5.0
#: Access tokens that one process asks for at once.
REFRESHES = 16
#: Seconds that running requests get when the process stops.
DRAIN = 30.0
#: Seconds more for a token refresh that is on its way, whose answer must not be lost.
LAST_REFRESH = 35.0


class WorkerProcess:
    """Hosts the workers of one OS process."""

    def __init__(self, settings: Settings, opener: Opener, birth: Birth) -> None:
        self.id = birth.process_id
        self._birth = birth
        self._settings = settings
        self._redis = connect(settings.redis_url)
        self._counters = Counters()
        self._credentials = Credentials(self._redis)
        self._leases = Leases(connect(settings.redis_url, size=2, timeout=1.5), self.id)
        self._names = settings.pool_names
        self._private = PrivateCredentials(self._redis)
        self._census = Census(self._redis, self.id, settings)
        self._pipeline = Pipeline(self._redis, eager=True, at_once=TURNS)
        self._queues = Made(
            lambda name: PoolQueue(self._redis, self._pipeline, name, settings, self._counters), self._names
        )
        self._around = self._surroundings(opener)
        self._control = Control(connect(settings.redis_url, size=2), self._around.publisher.hear)
        self._crew = Crew(self._around, self._leases, self._census, self._control, self._queues)
        self._fronts = Fronts(self._redis, self._all_pools, self._counters, self._crew.front_gone)
        kept = (settings.request_log_entries, settings.request_log_days, settings.usage_days)
        self._ledger = Ledger(self._redis, *kept)
        self._errands = ErrandDesk(connect(settings.redis_url, size=2), self.id, self._crew)
        self._stopping = Event()

    def _surroundings(self, opener: Opener) -> Surroundings:
        connections = lone_connections(self._settings.redis_url)
        return Surroundings(
            settings=self._settings,
            redis=self._redis,
            connections=connections,
            publisher=Publisher(self._pipeline, self._counters),
            watch=Watch(),
            counters=self._counters,
            tokens=TokenStore(self._redis, opener),
            breakers=Made(lambda name: Breaker(self._redis, name, self.id, self._counters), self._names),
            workers=lambda pool: len(self._crew.of(pool)),
            refreshing=BoundedSemaphore(REFRESHES),
            token_sessions={
                pool.name: shared_session(pool.token_url, REFRESHES, pool.proxy, pool.ca_bundle)
                for pool in self._settings.pools
            },
            ways=Made(self._way),
            move=self._move,
            suspended=lambda: self._census.suspended,
        )

    def _way(self, name: str) -> Way:
        pool = self._settings.pool(name)
        return Way(pool.upstream_url, proxy=pool.proxy, ca_bundle=pool.ca_bundle)

    def run(self) -> None:
        """Runs until SIGTERM or SIGINT, then lets running requests end and gives the credentials back."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(signum, self._stopping.set)
        endless = (self._around.publisher.run, self._around.watch.run, self._control.run, self._errands.run)
        background = [gevent.spawn(keep_running, work) for work in endless]
        background.append(gevent.spawn(self._renew_leases))
        for seconds, work in self._chores():
            background.append(gevent.spawn(self._every, seconds, work))
        self._guarded(lambda: self._for_each_queue(PoolQueue.show))
        log.info("worker process is up", extra={"action": "process_started", "worker_process": self.id})
        if self._birth.predecessor:
            self._guarded(self._bury)
        while not self._stopping.is_set() and os.getppid() == self._birth.parent:
            self._guarded(self._crew.look)
            self._stopping.wait(LOOK_EVERY)
        self._drain()
        gevent.killall(background)
        log.info("worker process is down", extra={"action": "process_stopped", "worker_process": self.id})

    def _chores(self) -> list[tuple[float, Callable[[], object]]]:
        return [
            (1.0, self._crew.beat_oldest),
            (RECOVER_EVERY, lambda: self._for_each_queue(PoolQueue.recover)),
            (CLEAN_EVERY, lambda: self._for_each_queue(PoolQueue.clean)),
            (FRONTS_EVERY, self._fronts.look),
            (0.5, self._crew.refresh_idle),
            (1.0, lambda: self._counters.hand_over(self._redis)),
            (ADD_UP_EVERY, self._ledger.add_up),
            (TRIM_EVERY, self._ledger.trim),
            (FORGET_EVERY, self._forget_idle),
            (5.0, self._around.publisher.expire),
        ]

    def _renew_leases(self) -> None:
        """A renewal that fails is tried again at once, because the leases run on."""
        while True:
            gevent.sleep(RENEW_EVERY)
            while not self._guarded(self._crew.renew):
                gevent.sleep(RENEW_AGAIN)

    def _every(self, seconds: float, work: Callable[[], object]) -> None:
        while True:
            gevent.sleep(seconds)
            self._guarded(work)

    def _guarded(self, work: Callable[[], object]) -> bool:
        """Whether it went well; a chore that fails is tried again at its next turn, and the process lives on."""
        try:
            work()
            return True
        except (RedisError, OSError) as error:
            log.warning(
                "%s failed: %s", work.__name__, error, extra={"action": "redis_lost", "worker_process": self.id}
            )
        except Exception:
            log.exception("%s failed", work.__name__, extra={"action": "chore_failed", "worker_process": self.id})
        return False

    def _for_each_queue(self, work: Callable[[PoolQueue], None]) -> None:
        for queue in list(self._queues.values()):
            work(queue)

    def _all_pools(self) -> list[str]:
        """The configured pools, and those of private credentials."""
        return [*self._names, *self._private.names()]

    def _forget_idle(self) -> None:
        """Forgets private credentials that were not used for a while."""
        idle = {pool.name: pool.private_idle for pool in self._settings.pools}
        for name in self._private.forget_idle(lambda one: idle.get(names.family(one), PoolSettings.private_idle)):
            extra = {"action": "private_forgotten", "pool": names.family(name), "reason": "idle"}
            log.info("a private credential was not used and is forgotten", extra=extra)

    def _bury(self) -> None:
        """The process in whose place this one is has died: what it held is free."""
        ids = [one for pool in self._all_pools() for one in self._credentials.states(pool)]
        freed = self._leases.bury(self._birth.predecessor, ids)
        self._census.bury(self._birth.predecessor)
        fields = {"action": "process_buried", "worker_process": self._birth.predecessor}
        log.warning("a worker process died and left %d leases, free now", freed, extra=fields)

    def _move(self, pool: str, credential_id: str, state: str, reason: str, until: float) -> None:
        """Moves a credential to another state, unless a person's word stands against it."""
        moved = self._credentials.move(pool, credential_id, cast("State", state), reason, until)
        fields = {"credential_id": credential_id, "pool": pool, "reason": reason}
        if not moved:
            log.info("a person's word stands", extra={**fields, "action": "state_kept"})
            return
        self._counters.add("credential_changes", names.family(pool), state, reason)
        level = logging.WARNING if state == "dead" else logging.INFO
        log.log(level, "credential is %s", state, extra={**fields, "action": f"credential_{state}"})

    def _drain(self) -> None:
        """1. Say goodbye, so that others take over. 2. Stop idle workers now, busy ones after their request."""
        self._guarded(self._census.leave)
        self._crew.stop()
        until = time.monotonic() + DRAIN
        while self._crew and time.monotonic() < until:
            self._guarded(self._crew.send_home)
            self._crew.join(0.2)
        self._crew.interrupt()
        self._crew.join(LAST_REFRESH)
        self._around.publisher.drain(2.0)
        self._guarded(lambda: self._counters.hand_over(self._redis))
        self._guarded(self._ledger.add_up)
