"""Asks the sentinels which server is the primary, and takes connections off one that is no longer.

A majority of the sentinels in the URL decides. A sentinel that was cut off from the others may name a former primary
for as long as that lasts, and so may the former primary call itself one.
"""

import logging
import os
import socket
from collections import Counter
from contextlib import suppress
from functools import lru_cache
from typing import Protocol
from weakref import WeakSet

import gevent
from gevent.lock import BoundedSemaphore
from redis import ConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from shared import clock
from shared.background import keep_running
from shared.redis_connection.tls_connection import select_tls_class
from shared.sentinel_url import SentinelUrl, is_sentinel_url, parse_sentinel_url

log = logging.getLogger("farm.redis_line")
Address = tuple[str, int]
#: Seconds that a sentinel has for its reply.
REPLY_TIMEOUT_SECONDS = 1.0
#: Seconds between two questions while a process watches; a failover is noticed within them.
WATCH_INTERVAL_SECONDS = 1.0
#: Seconds for which an answer serves further connections: after a failover, each worker opens one.
ANSWER_LIFETIME_SECONDS = 0.2


class WatchedConnection(Protocol):
    """A connection to a server that was the primary when it was opened."""

    @property
    def peer(self) -> Address: ...
    @property
    def open_socket(self) -> socket.socket | None: ...


class PrimaryFinder:
    """The primary of one service."""

    def __init__(self, url: SentinelUrl) -> None:
        self._service = url.service
        self._sentinels = [
            Redis(
                connection_pool=ConnectionPool.from_url(
                    sentinel_url,
                    **select_tls_class(sentinel_url),
                    protocol=2,
                    socket_timeout=REPLY_TIMEOUT_SECONDS,
                    socket_connect_timeout=REPLY_TIMEOUT_SECONDS,
                )
            )
            for sentinel_url in url.sentinel_urls
        ]
        self._address: Address | None = None
        self.asked_at = float("-inf")
        #: When it was last asked of a majority which named the primary that is in use, by `clock.lease_time`.
        self.confirmed_at = float("-inf")
        self._connections: WeakSet[WatchedConnection] = WeakSet()
        self._lock = BoundedSemaphore()
        self._has_majority = True

    def find(self) -> Address:
        """Host and port of the primary. Raises RedisConnectionError when no sentinel names one."""
        with self._lock:
            if self._address is None or clock.lease_time() > self.asked_at + ANSWER_LIFETIME_SECONDS:
                self._ask()
        if self._address is None:
            raise RedisConnectionError(f"no sentinel of REDIS_URL names the primary of {self._service!r}")
        return self._address

    def watch(self) -> None:
        """Runs forever: asks every second, and cuts connections to a server that is the primary no longer."""
        while True:
            with self._lock:
                self._ask()
            gevent.sleep(WATCH_INTERVAL_SECONDS)

    def add(self, connection: WatchedConnection) -> None:
        """Registers an open connection. Raises RedisConnectionError if there is another primary by now."""
        if connection.peer != self._address:
            raise RedisConnectionError("there was a failover of Redis")
        self._connections.add(connection)

    def _ask(self) -> None:
        """Asks all sentinels at once; waits no longer than until a majority agrees."""
        asked_at = clock.lease_time()
        votes: Counter[Address] = Counter()
        majority = len(self._sentinels) // 2 + 1
        named, count = None, 0
        for question in gevent.iwait([gevent.spawn(self._ask_one, sentinel) for sentinel in self._sentinels]):
            if question.value:
                votes[question.value] += 1
                ((named, count),) = votes.most_common(1)
            if count == majority:
                break
        self.asked_at = asked_at
        self._report_majority(count >= majority)
        if count >= majority:
            self.confirmed_at = asked_at
            self._adopt(named)
        elif self._address is None:
            # Good enough to read and write; leases want a majority (`confirmed_at`).
            self._address = named

    def _ask_one(self, sentinel: Redis) -> Address | None:
        try:
            reply = sentinel.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", self._service)
        except RedisError as error:
            log.debug("a sentinel does not reply: %s", error, extra={"action": "sentinel_lost"})
            return None
        return (reply[0].decode(), int(reply[1])) if reply else None

    def _adopt(self, address: Address | None) -> None:
        """Uses this primary, and cuts all connections to another one, whose host may never say that they are gone."""
        if address == self._address:
            return
        if self._address:
            log.warning("Redis failed over to %s:%d", *(address or ()), extra={"action": "redis_failover"})
        self._address = address
        for connection in list(self._connections):
            if connection.peer != address:
                self._connections.discard(connection)
                cut(connection.open_socket)

    def _report_majority(self, has_majority: bool) -> None:
        if has_majority != self._has_majority:
            self._has_majority = has_majority
            if has_majority:
                log.warning("a majority of the sentinels replies again", extra={"action": "sentinels_back"})
            else:
                message = "no majority of the sentinels in REDIS_URL agrees: leases are not renewed"
                log.error(message, extra={"action": "sentinels_lost"})


def cut(open_socket: socket.socket | None) -> None:
    """Ends a connection for whoever waits for it, below its TLS: that layer would forget its state under a reader."""
    if open_socket is not None:
        with suppress(OSError), socket.socket(fileno=os.dup(open_socket.fileno())) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)


@lru_cache
def get_primary_finder(url: str) -> PrimaryFinder | None:
    """The process's finder for this URL of Redis; None unless it names sentinels."""
    return PrimaryFinder(parse_sentinel_url(url)) if is_sentinel_url(url) else None


def start_watching(url: str) -> None:
    """Watches the primary in the background, if the URL names sentinels."""
    if finder := get_primary_finder(url):
        gevent.spawn(keep_running, finder.watch)


def find_confirmation(url: str) -> float:
    """When it was last certain which server is the primary, by `clock.lease_time`: now, without sentinels."""
    finder = get_primary_finder(url)
    return finder.confirmed_at if finder else clock.lease_time()
