"""`python -m workers.health_check`: whether a worker process of this host still reports to Redis, for containers."""

import socket
import sys

from redis import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.errors import FarmError
from shared.redis_connection.client import connect
from shared.settings.loading import load_settings

#: Seconds without a report after which a process counts as hung; the farm itself moves its credentials much earlier.
MAX_SILENCE_SECONDS = 30.0
#: Seconds within which Redis must reply.
REDIS_TIMEOUT_SECONDS = 5.0


def main() -> int:
    """Prints what it finds; returns 0 if a process reports, else 1."""
    try:
        count = count_processes(connect(load_settings().redis_url, size=1, timeout=REDIS_TIMEOUT_SECONDS))
    except (FarmError, RedisError) as error:
        print(f"farm: {error}", file=sys.stderr)
        return 1
    print(f"{count} worker processes of this host report to Redis")
    return 0 if count else 1


def count_processes(redis: Redis) -> int:
    """Counts the processes of this host, retiring ones too, that have reported lately. Raises RedisError."""
    seconds, _ = redis.time()
    return sum(
        process.decode().startswith(f"{socket.gethostname()}-")
        for members in (keys.PROCESSES, keys.RETIRING_PROCESSES)
        for process in redis.zrangebyscore(members, seconds - MAX_SILENCE_SECONDS, "+inf")
    )


if __name__ == "__main__":
    sys.exit(main())
