"""Opens connections to Redis and loads the Lua scripts beside the code; it knows no key."""

from pathlib import Path

from redis import BlockingConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.connection import ConnectionPool
from redis.exceptions import BusyLoadingError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from shared.errors import StoreLoading, StoreUnavailable

#: Oldest Redis that has BLMOVE and LMOVE.
MIN_REDIS_VERSION = (6, 2)
#: A small pool that waits serves thousands of greenlets; the default pool raises at 100 connections.
POOL_SIZE = 16
#: Single connections are as many as there are workers; redis-py would stop at 100.
MAX_SINGLE_CONNECTIONS = 2**31


def connect(url: str, *, size: int = POOL_SIZE, timeout: float = 10.0) -> Redis:
    """A client on a bounded pool whose callers wait for a free connection. Opens nothing yet."""
    pool = BlockingConnectionPool.from_url(
        url, max_connections=size, timeout=timeout, socket_timeout=timeout, socket_connect_timeout=timeout, protocol=2
    )
    return Redis(connection_pool=pool)


def single_connections(url: str) -> ConnectionPool:
    """A source of single connections for those who hold one each (a worker that waits, a subscriber).

    They never try a command a second time by themselves: a repeated BLMOVE could take a second job.
    """
    return ConnectionPool.from_url(
        url, protocol=2, max_connections=MAX_SINGLE_CONNECTIONS, socket_connect_timeout=5.0, retry=Retry(NoBackoff(), 0)
    )


def check_server(redis: Redis) -> None:
    """Raises StoreUnavailable unless a Redis of 6.2 or newer answers."""
    try:
        redis.ping()
        version = str(redis.info("server")["redis_version"])
    except BusyLoadingError:
        raise StoreLoading("Redis is still loading its data") from None
    except RedisConnectionError as error:
        raise StoreUnavailable(f"Redis does not answer: {error}") from None
    except RedisError as error:
        raise StoreUnavailable(f"Redis refuses: {error}") from None
    if tuple(int(part) for part in version.split(".")[:2]) < MIN_REDIS_VERSION:
        raise StoreUnavailable(f"Redis {version} is too old: the farm needs 6.2 or newer")


def decode_hash(table: dict[bytes, bytes]) -> dict[str, str]:
    """A hash of text."""
    return {name.decode(): value.decode() for name, value in table.items()}


def register_script(redis: Redis, *files: Path) -> Script:
    """The Lua script in these files, functions first, bound to the client; sent whole once, then called by its hash."""
    return redis.register_script("\n".join(file.read_text() for file in files))
