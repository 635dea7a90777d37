"""`python -m simulator`: serves the bundled upstream, or prints the refresh tokens that it takes."""

import argparse
import asyncio
import contextlib
import gc
import signal
from collections.abc import Coroutine
from typing import Any

from simulator.accounts import Accounts
from simulator.server import Pace, Simulator, serve


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000, help="0: any free one")
    parser.add_argument("--accounts", type=int, default=20, help="how many accounts there are")
    parser.add_argument("--seed", default="farm", help="what tokens are signed with")
    parser.add_argument("--access-ttl", type=float, default=3600.0, help="seconds an access token lives")
    parser.add_argument("--rotate", action="store_true", help="give a new refresh token at each refresh")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before an answer")
    parser.add_argument("--chunks", type=int, default=8, help="events with text in a stream")
    parser.add_argument("--chunk-delay", type=float, default=0.0, help="seconds between two of them")
    parser.add_argument("--print-tokens", action="store_true", help="print the refresh tokens and end")
    return parser.parse_args()


def main() -> None:
    """Runs until SIGTERM or SIGINT."""
    given = arguments()
    accounts = Accounts(given.accounts, given.seed, given.access_ttl, given.rotate)
    if given.print_tokens:
        print("\n".join(accounts.first_tokens()))
        return
    simulator = Simulator(accounts, Pace(given.delay, given.chunks, given.chunk_delay))
    gc.freeze()
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(until_terminated(serve(simulator, given.host, given.port)))


async def until_terminated(work: Coroutine[Any, Any, None]) -> None:
    """SIGTERM cancels it. A handler of `signal` alone would be late: one that comes just before the loop begins to wait
    is looked at when the wait is over, and without requests that is never.
    """
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task


if __name__ == "__main__":
    main()
