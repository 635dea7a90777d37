"""Opens connections to Redis and registers Lua scripts.

Whatever goes wrong with such a connection is a RedisError. A bare OSError is therefore never Redis's: it comes from a
file, a certificate or another peer, and nothing is retried because of it.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from redis import BlockingConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.connection import ConnectionPool
from redis.driver_info import DriverInfo
from redis.exceptions import AuthenticationError, BusyLoadingError, NoPermissionError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from shared import clock
from shared.errors import StoreLoading, StoreUnavailable
from shared.network.tcp_keepalive import KeepAlive
from shared.redis_connection.primary_connection import PrimaryConnection, TlsPrimaryConnection
from shared.redis_connection.primary_finder import get_primary_finder
from shared.redis_connection.tls_connection import select_tls_class
from shared.sentinel_url import parse_sentinel_url

#: Oldest Redis that has BLMOVE and LMOVE.
MIN_REDIS_VERSION = (6, 2)
#: Connections in a pool; a small blocking pool serves thousands of greenlets.
POOL_SIZE = 16
#: Dedicated connections are bounded by the number of workers; redis-py's default is 100.
MAX_DEDICATED_CONNECTIONS = 2**31
#: A connection that only reads, such as an idle worker's or a subscription, would otherwise wait for a vanished Redis
#: for ever. Network silence of ten seconds is tolerated, as Redis's own is.
KEEPALIVE = KeepAlive(idle=5, interval=2, probes=3)
#: redis-py's name and version, which the server shows; each connection would read them anew from the package's files.
DRIVER = DriverInfo()


def connect(url: str, *, size: int = POOL_SIZE, timeout: float = 10.0) -> Redis:
    """Returns a client on a bounded, blocking connection pool. Connects lazily; `timeout` is in seconds."""
    server_url, connection_options = select_server(url)
    pool = BlockingConnectionPool.from_url(
        server_url,
        **connection_options,
        **select_keepalive(url),
        driver_info=DRIVER,
        max_connections=size,
        timeout=timeout,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        protocol=2,
    )
    return Redis(connection_pool=pool)


def create_dedicated_pool(url: str) -> ConnectionPool:
    """Returns a pool of dedicated connections, for holders of one each (an idle worker, a subscriber).

    They never retry a command: a repeated BLMOVE could take a second job.
    """
    server_url, connection_options = select_server(url)
    return ConnectionPool.from_url(
        server_url,
        **connection_options,
        **select_keepalive(url),
        driver_info=DRIVER,
        protocol=2,
        max_connections=MAX_DEDICATED_CONNECTIONS,
        socket_connect_timeout=5.0,
        retry=Retry(NoBackoff(), 0),
    )


def select_server(url: str) -> tuple[str, dict[str, Any]]:
    """The URL and the arguments with which redis-py's pools open connections to the one server, or to the primary."""
    finder = get_primary_finder(url)
    if finder is None:
        return url, select_tls_class(url)
    connection_class = TlsPrimaryConnection if url.startswith("rediss") else PrimaryConnection
    return parse_sentinel_url(url).redis_url, {"connection_class": connection_class, "finder": finder}


def build_server_url(url: str) -> str:
    """The URL of the primary as of now, if `url` names sentinels; else `url`. Raises RedisError."""
    finder = get_primary_finder(url)
    if finder is None:
        return url
    host, port = finder.find()
    parts = urlsplit(parse_sentinel_url(url).redis_url)
    user, at, _ = parts.netloc.rpartition("@")
    address = f"{f'[{host}]' if ':' in host else host}:{port}"
    return urlunsplit((parts.scheme, f"{user}{at}{address}", parts.path, parts.query, ""))


def select_keepalive(url: str) -> dict[str, dict[int, int]]:
    """The argument of redis-py's pools that finds a vanished Redis; none for a unix socket."""
    return {} if url.startswith("unix:") else {"socket_keepalive_options": KEEPALIVE.list_options_and_user_timeout()}


def check_server(redis: Redis) -> None:
    """Raises StoreUnavailable unless Redis 6.2 or newer responds and grants what the farm needs, StoreLoading while it
    loads its data.
    """
    try:
        redis.ping()
        clock.compare_with(redis)
        version = str(redis.info("server")["redis_version"])
        check_rights(redis)
    except NoPermissionError as error:
        raise StoreUnavailable(
            f"REDIS_URL: docs/configuration.md lists the rights of its user; Redis says: {error}"
        ) from None
    except AuthenticationError as error:
        raise StoreUnavailable(f"REDIS_URL: Redis refuses its user or password: {error}") from None
    except BusyLoadingError:
        raise StoreLoading("Redis is still loading its data") from None
    except RedisConnectionError as error:
        raise StoreUnavailable(f"Redis does not respond: {error}") from None
    except RedisError as error:
        raise StoreUnavailable(f"Redis returned an error: {error}") from None
    if tuple(int(part) for part in version.split(".")[:2]) < MIN_REDIS_VERSION:
        raise StoreUnavailable(f"Redis {version} is too old: the farm needs 6.2 or newer")


def check_rights(redis: Redis) -> None:
    """Uses each right that an ACL user does not have with `+@all -@dangerous`. Raises NoPermissionError."""
    redis.client_id()
    redis.client_unblock(0)
    redis.exists("farm:", "rq:")
    redis.script_exists("0" * 40)
    with redis.pubsub() as subscription:
        subscription.psubscribe("farm:reply:*")
        subscription.parse_response()


def decode_hash(table: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in table.items()}


@contextmanager
def pin_connection(redis: Redis) -> Iterator[Redis]:
    """The client on one connection of its pool, as `Redis.client()` without its 0.3 ms for a new client."""
    pinned = copy.copy(redis)
    pinned.auto_close_connection_pool = False
    pinned.connection = redis.connection_pool.get_connection()
    try:
        yield pinned
    finally:
        pinned.close()


def register_script(redis: Redis, *files: Path) -> Script:
    """Registers the Lua script made of these files (functions first) with the client; EVALSHA calls it."""
    return redis.register_script(read_script(*files))


def read_script(*files: Path) -> str:
    """The Lua script in these files, concatenated in their order: functions first."""
    return "\n".join(file.read_text() for file in files)
