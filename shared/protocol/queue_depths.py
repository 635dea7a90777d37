"""How many requests wait in each pool, by the band that they were admitted to, read in one command."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared import keys
from shared.protocol.relay_queue import BANDS, queue_keys

#: API keys of a band whose queues are counted one by one, which takes Redis a microsecond each. With more in both bands
#: RQ's lists tell, which take batch requests that came while a worker was idle for interactive ones.
MAX_KEYS = 500
QUEUE_DEPTHS_LUA = Path(__file__).with_name("queue_depths.lua").read_text()


def request_depths(pipe: Any, pools: Sequence[str], most_keys: int = MAX_KEYS) -> None:
    """Adds the command to a pipeline; its reply has the numbers of each pool in the order of BANDS.

    What is in RQ's queues without being the farm's counts as interactive.
    """
    names = [name for pool in pools for name in list_keys(pool)]
    pipe.eval(QUEUE_DEPTHS_LUA, len(names), *names, most_keys)


def list_keys(pool: str) -> list[str]:
    """As queue_depths.lua takes them."""
    base = keys.fair_queue(pool)
    tags = [f"{base}:{band}" for band in BANDS]
    retries = [keys.waiting_retries(pool), keys.waiting_batch_retries(pool)]
    return [*queue_keys(pool), *tags, *retries, *(keys.set_aside(pool, band) for band in BANDS)]
