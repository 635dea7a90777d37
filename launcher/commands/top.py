"""`./farm top`: queue, running requests and what each account does, live in the terminal."""

import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import click
from redis import Redis

from launcher.live_screen import Account, LiveView, render
from launcher.lost_output import has_reader
from launcher.number_option import NumberRange
from launcher.output import exit_on_error, json_option, print_json, print_line
from launcher.selection import select_pool
from launcher.store import open_store
from shared import clock, names
from shared.credentials import private
from shared.credentials.store import Credentials
from shared.observability.names_by_id import find_credential_names
from shared.observability.tape import read_tape
from shared.queue_view.pool_queue import QueueView
from shared.settings.schema import Settings

#: Requests that are read of each pool.
MAX_REQUESTS = 200
#: Another screen without a cursor, and back; the cursor to the first line; delete the rest of a line, of the screen.
ENTER_SCREEN, LEAVE_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
HOME, CLEAR_LINE, CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"


@click.command()
@click.option("--pool", default="", help="Only this pool.")
@click.option("--interval", type=NumberRange(0.2, 60), default=1.0, show_default=True, help="Seconds between looks.")
@click.option("--once", is_flag=True, help="Show it once; always so where the output is no terminal.")
@json_option
@exit_on_error
def top(pool: str, interval: float, once: bool, as_json: bool) -> None:
    """Show who waits in the order of service, what runs, and what each account did in the last seconds.

    Letters: b busy, i idle, w idle while a request waited, c cooling, r refreshing its token, o upstream down,
    s suspended, d draining, - no worker. Ctrl-C ends it.
    """
    settings, redis = open_store()
    pools = [select_pool(settings, pool)] if pool else list(settings.pool_names)
    if as_json:
        print_json(asdict(read_view(settings, redis, pools)))
    elif once or not sys.stdout.isatty():
        for line in render(read_view(settings, redis, pools), shutil.get_terminal_size((200, 50)).columns):
            print_line(line)
    else:
        run_screen(settings, redis, pools, interval)


def run_screen(settings: Settings, redis: Redis, pools: list[str], interval: float) -> None:
    """Redraws the screen until Ctrl-C, or until the terminal has gone."""
    with use_screen():
        while has_reader():
            size = shutil.get_terminal_size()
            lines = render(read_view(settings, redis, pools), size.columns, size.lines - 1)
            sys.stdout.write(HOME + "".join(f"{line}{CLEAR_LINE}\n" for line in lines) + CLEAR_REST)
            sys.stdout.flush()
            time.sleep(interval)


@contextmanager
def use_screen() -> Iterator[None]:
    """Leaves the terminal as it was, with what it showed before; also when the command is killed by SIGTERM."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.default_int_handler)
    sys.stdout.write(ENTER_SCREEN)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        sys.stdout.write(LEAVE_SCREEN)
        sys.stdout.flush()


def read_view(settings: Settings, redis: Redis, pools: list[str]) -> LiveView:
    """Reads everything at about the same time. The accounts that don't serve come last."""
    view = QueueView(redis, settings.batch_age, settings.batch_turns, settings.max_queue)
    with_private = [
        name for name in private.list_all_pools(redis, settings.pool_names) if names.configured_pool(name) in pools
    ]
    store = Credentials(redis)
    states = {name: store.get_states(name) for name in with_private}
    labels = find_credential_names(redis, [id_ for credentials in states.values() for id_ in credentials])
    accounts = [
        Account(id_, labels.get(id_, ""), name, state)
        for name, credentials in states.items()
        for id_, state in sorted(credentials.items(), key=lambda item: (item[1] != "active", item))
    ]
    return LiveView(
        at=clock.now(),
        queues=view.read(pools, MAX_REQUESTS),
        running=view.list_running(with_private, MAX_REQUESTS),
        accounts=accounts,
        tape=read_tape(redis),
    )
