"""`python -m workers.alerts`: carries out one order from standard input."""

import signal
import sys
from contextlib import suppress

from redis.exceptions import RedisError

from shared.alerts.orders import DELIVERY_SECONDS, Order, Outcome
from shared.errors import FarmError
from workers.alerts.delivery import carry_out


def main() -> int:
    """Ends by itself, also when the worker process that started it has been killed: what it has begun is told once."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    signal.alarm(DELIVERY_SECONDS)
    try:
        outcome = carry_out(Order.decode(sys.stdin.buffer.read()))
    except (RedisError, FarmError) as error:
        outcome = Outcome(error=f"Redis: {error}" if isinstance(error, RedisError) else str(error))
    with suppress(OSError):
        print(outcome.encode(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
