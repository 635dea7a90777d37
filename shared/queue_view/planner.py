"""How many accounts a load needs, so that most of its requests wait no longer than wished. No I/O.

Past arrivals and service times are replayed on so many accounts, first come, first served. That keeps the bursts in
which translation clients send; Erlang C, told beside it, assumes arrivals at random and is too hopeful then. Accounts
are assumed never to rest and never to fail.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

#: Accounts that are tried, at most.
MAX_ACCOUNTS = 5000
#: Percentiles that are told beside the wished one.
PERCENTILES = (0.5, 0.95, 0.99)
#: Requests that are replayed between two calls of `pause`, so that other greenlets get their turn.
REQUESTS_BETWEEN_PAUSES = 250
Pause = Callable[[], None]


def go_on() -> None:
    """Pauses for nobody."""


class Demand(NamedTuple):
    """A request of the past: when it came, in seconds since the epoch, and how many of an account's time it took."""

    arrived_at: float
    seconds: float


@dataclass(frozen=True)
class Outlook:
    """What a load would have met with so many accounts. Waits are in seconds."""

    accounts: int
    #: Wait of the wished share of the requests, and share of the requests that wait no longer than wished.
    wait: float
    share_in_time: float
    p50: float
    p95: float
    p99: float
    #: Share of the accounts' time between the first arrival and the last end.
    utilisation: float


@dataclass(frozen=True)
class Wish:
    """This share of the requests shall wait for so many seconds at most."""

    wait: float = 5.0
    share: float = 0.95


def simulate(load: Sequence[Demand], accounts: int, pause: Pause = go_on) -> list[float]:
    """How long each request waits, in order of arrival, which the load must be in. `pause` is called now and then."""
    free_at = [0.0] * accounts
    waits: list[float] = []
    for arrived_at, seconds in load:
        if len(waits) % REQUESTS_BETWEEN_PAUSES == 0:
            pause()
        begun_at = max(arrived_at, free_at[0])
        waits.append(begun_at - arrived_at)
        heapq.heapreplace(free_at, begun_at + seconds)
    return waits


def find_accounts(load: Sequence[Demand], wish: Wish, pause: Pause = go_on) -> int | None:
    """The fewest accounts that fulfil the wish; None if MAX_ACCOUNTS don't."""

    def fulfils(accounts: int) -> bool:
        return share_within(simulate(load, accounts, pause), wish.wait) >= wish.share

    low, high = 0, max(1, math.ceil(offered_accounts(load)))
    while not fulfils(high):
        if high >= MAX_ACCOUNTS:
            return None
        low, high = high, min(MAX_ACCOUNTS, 2 * high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fulfils(middle) else (middle, high)
    return high


def look_ahead(load: Sequence[Demand], accounts: int, wish: Wish, pause: Pause = go_on) -> Outlook:
    """What the load would have met with so many accounts."""
    waits = simulate(load, accounts, pause)
    end = max(
        (demand.arrived_at + wait + demand.seconds for demand, wait in zip(load, waits, strict=True)), default=0.0
    )
    span = end - load[0].arrived_at if load else 0.0
    worked = sum(demand.seconds for demand in load)
    ordered = sorted(waits)
    p50, p95, p99 = (round(pick(ordered, share), 3) for share in PERCENTILES)
    return Outlook(
        accounts=accounts,
        wait=round(pick(ordered, wish.share), 3),
        share_in_time=round(share_within(ordered, wish.wait), 4),
        p50=p50,
        p95=p95,
        p99=p99,
        utilisation=round(worked / (accounts * span), 4) if span else 0.0,
    )


def pick(ordered: Sequence[float], share: float) -> float:
    """The smallest value that this share of the values does not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def share_within(waits: Sequence[float], seconds: float) -> float:
    return sum(wait <= seconds for wait in waits) / len(waits) if waits else 1.0


def offered_accounts(load: Sequence[Demand]) -> float:
    """Average number of accounts that the load keeps busy while it arrives."""
    span = load[-1].arrived_at - load[0].arrived_at if load else 0.0
    return sum(demand.seconds for demand in load) / span if span else 0.0


def find_accounts_by_erlang_c(offered: float, mean_seconds: float, wish: Wish) -> int | None:
    """The same by Erlang C (M/M/n): P(wait > t) = C(n, a) exp(-(n - a) t / s), with `offered` as a.

    C follows from Erlang B, which is computed by its recursion over n. None if MAX_ACCOUNTS don't.
    """
    blocked = 1.0
    for accounts in range(1, MAX_ACCOUNTS + 1):
        blocked = offered * blocked / (accounts + offered * blocked)
        if accounts <= offered:
            continue
        waits = accounts * blocked / (accounts - offered * (1 - blocked))
        late = waits * math.exp(-(accounts - offered) * wish.wait / mean_seconds) if mean_seconds else 0.0
        if late <= 1 - wish.share:
            return accounts
    return None


def choose_accounts(needed: int, present: int) -> list[int]:
    """Numbers of accounts to compare with the needed one."""
    around: Iterable[int] = (needed // 2, round(0.75 * needed), needed - 1, needed, round(1.25 * needed), 2 * needed)
    return sorted({number for number in (*around, present) if 0 < number <= MAX_ACCOUNTS})
