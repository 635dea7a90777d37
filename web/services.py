"""The parts of one web process, put together once; they are what `create_app` hands to the routes."""

import logging
import time
from dataclasses import dataclass

import gevent
from flask import current_app
from redis import Redis
from redis.exceptions import RedisError

from shared.api_keys.admin_tokens import AdminTokens
from shared.api_keys.store import ApiKeys
from shared.background import keep_running
from shared.observability.audit_log import Audit
from shared.observability.counters import Counters
from shared.observability.request_log import RequestLog
from shared.protocol.relay_queue import RelayQueue
from shared.redis_connection.client import connect, lone_connections
from shared.settings.schema import Settings
from web.access.authenticator import Authenticator
from web.access.private_callers import PrivateCallers
from web.reply.hub import Hub
from web.request.availability import Usable
from web.request.drain_rate import DrainRate
from web.request.log_buffer import Journal
from web.request.pool_selection import Pools
from web.server.client_address import Proxies

log = logging.getLogger("farm.web")
EXTENSION = "farm"
#: Seconds between two signs of life towards the workers.
SIGN_EVERY = 2.0


@dataclass
class Parts:
    """Everything a route needs."""

    settings: Settings
    redis: Redis
    pools: Pools
    usable: Usable
    queue: RelayQueue
    hub: Hub
    drain_rate: DrainRate
    authenticator: Authenticator
    admin_tokens: AdminTokens
    audit: Audit
    proxies: Proxies
    counters: Counters
    journal: Journal
    started_at: float

    def start(self) -> None:
        """Begins what runs in the background; called once, in the process that serves."""
        self._sign()
        self.hub.start()
        gevent.spawn(keep_running, self._keep_signing)
        gevent.spawn(keep_running, self.drain_rate.run)
        gevent.spawn(keep_running, self._hand_over)

    def _keep_signing(self) -> None:
        while True:
            gevent.sleep(SIGN_EVERY)
            self._sign()

    def _sign(self) -> None:
        try:
            if self.hub.is_listening:
                self.hub.sign()
        except (RedisError, OSError) as error:
            log.warning("no sign of life given: %s", error, extra={"action": "redis_lost"})

    def _hand_over(self) -> None:
        while True:
            gevent.sleep(1.0)
            self.stop()

    def leave(self) -> None:
        """The end of the process."""
        self.stop()
        try:
            self.hub.leave()
        except (RedisError, OSError) as error:
            log.warning("not said goodbye: %s", error, extra={"action": "redis_lost"})

    def stop(self) -> None:
        """Hands over what was counted."""
        try:
            self.counters.hand_over(self.redis)
            self.journal.write()
        except (RedisError, OSError) as error:
            log.warning("counts are kept for later: %s", error, extra={"action": "redis_lost"})


def build(settings: Settings) -> Parts:
    """Puts the parts together; opens no connection yet."""
    redis = connect(settings.redis_url)
    names = settings.pool_names
    queue = RelayQueue(redis, settings.max_queue)
    hub = Hub(redis, lone_connections(settings.redis_url), queue.vanished)
    hub.cancel = queue.cancel
    usable, drain_rate = Usable(redis), DrainRate(redis, names)
    return Parts(
        settings=settings,
        redis=redis,
        pools=Pools(settings, usable, drain_rate),
        usable=usable,
        queue=queue,
        hub=hub,
        drain_rate=drain_rate,
        authenticator=Authenticator(ApiKeys(redis), PrivateCallers(redis, settings.pools)),
        admin_tokens=AdminTokens(redis),
        audit=Audit(redis),
        proxies=Proxies(settings.trusted_proxies),
        counters=Counters(),
        journal=Journal(RequestLog(redis)),
        started_at=time.time(),
    )


def parts() -> Parts:
    """The parts of the app that serves the present request."""
    found = current_app.extensions[EXTENSION]
    assert isinstance(found, Parts)
    return found
