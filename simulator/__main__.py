"""`python -m simulator`: serves the bundled upstream, or prints the refresh tokens that it accepts."""

import argparse
import asyncio
import contextlib
import gc
import signal
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from simulator.accounts import Accounts
from simulator.server import serve
from simulator.simulation import Pace, Simulation
from simulator.token_endpoint.credential_kinds import list_secrets


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000, help="0 for any free port")
    parser.add_argument("--accounts", type=int, default=20, help="number of accounts")
    parser.add_argument("--seed", default="farm", help="secret that tokens are signed with")
    parser.add_argument("--access-ttl", type=float, default=3600.0, help="lifetime of an access token in seconds")
    parser.add_argument("--rotate", action="store_true", help="issue a new refresh token at each refresh")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before a response")
    parser.add_argument("--chunks", type=int, default=8, help="text events per stream")
    parser.add_argument("--chunk-delay", type=float, default=0.0, help="seconds between two text events")
    parser.add_argument("--https", type=Path, metavar="FILE", help="serve HTTPS; write the new certificate to FILE")
    parser.add_argument("--print-tokens", action="store_true", help="print the refresh tokens and exit")
    parser.add_argument("--kind", default="refresh_token", help="with --print-tokens: of this FARM_CREDENTIAL_KIND")
    return parser.parse_args()


def main() -> None:
    """Runs until SIGTERM or SIGINT."""
    arguments = parse_arguments()
    if arguments.print_tokens:
        print("\n".join(list_secrets(create_accounts(arguments), arguments.kind)))
        return
    create = partial(create_simulation, arguments)
    gc.freeze()
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(run_until_terminated(serve(create, arguments.host, arguments.port, arguments.https)))


def create_accounts(arguments: argparse.Namespace) -> Accounts:
    return Accounts(arguments.accounts, arguments.seed, arguments.access_ttl, arguments.rotate)


def create_simulation(arguments: argparse.Namespace) -> Simulation:
    pace = Pace(arguments.delay, arguments.chunks, arguments.chunk_delay)
    return Simulation(create_accounts(arguments), pace, scheme="https" if arguments.https else "http")


async def run_until_terminated(work: Coroutine[Any, Any, None]) -> None:
    """Cancels the coroutine on SIGTERM.

    `signal.signal` alone would not do: if the signal arrives just before the loop blocks in its selector, the handler
    runs only when the selector returns, which without requests is never.
    """
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task


if __name__ == "__main__":
    main()
