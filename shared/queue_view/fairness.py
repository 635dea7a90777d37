"""The fairness ledger: what each API key was entitled to by its weight, what it got, and who waits for whom. No I/O."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from shared.queue_view.service_order import Turn

#: Keys of the ledger, and keys that one is said to wait for, at most.
MAX_KEYS, MAX_RIVALS = 100, 3


@dataclass(frozen=True)
class FairShare:
    """One API key in the last five minutes. Seconds are of workers' time, shares are of all keys'."""

    key: str
    key_name: str
    weight: float
    got_seconds: float
    got: float
    #: Its share by weight of each slot in which it had requests, among the keys that had some.
    entitled_seconds: float
    entitled: float


@dataclass(frozen=True)
class Rival:
    """An API key for whose requests another one waits."""

    key: str
    key_name: str
    #: Its requests that run, and that will be started before the other key's next one.
    running: int
    ahead: int


def list_shares(
    slots: Sequence[Mapping[str, float]],
    waiting: Collection[str],
    weights: Mapping[str, float],
    names: Mapping[str, str],
) -> list[FairShare]:
    """`slots`: API key -> seconds, the oldest slot first; `waiting`: keys that have requests waiting now.

    Whoever has requests in a slot is entitled to its weight's share of that slot; who has none leaves it to the others.
    """
    got, entitled = Counter[str](), defaultdict[str, float](float)
    for number, slot in enumerate(slots, 1):
        total = sum(slot.values())
        active = {*slot, *waiting} if number == len(slots) else {*slot}
        whole = sum(weights.get(key, 1.0) for key in active)
        for key in active:
            got[key] += slot.get(key, 0.0)  # type: ignore[assignment]
            entitled[key] += total * weights.get(key, 1.0) / whole
    total = sum(got.values())
    return [
        FairShare(
            key=key,
            key_name=names.get(key, ""),
            weight=weights.get(key, 1.0),
            got_seconds=round(seconds, 3),
            got=round(seconds / total, 4),
            entitled_seconds=round(entitled[key], 3),
            entitled=round(entitled[key] / total, 4),
        )
        for key, seconds in got.most_common(MAX_KEYS)
        if total
    ]


def find_rivals(order: Iterable[Turn], running: Mapping[str, int], names: Mapping[str, str]) -> dict[str, list[Rival]]:
    """API key -> the keys that its next request waits for, those with the most requests first."""
    ahead, found = Counter[str](), dict[str, list[Rival]]()
    for turn in order:
        if turn.key and turn.key not in found:
            before = Counter(running) + ahead
            del before[turn.key]
            rivals = [key for key, _ in before.most_common(MAX_RIVALS)]
            found[turn.key] = [Rival(key, names.get(key, ""), running.get(key, 0), ahead[key]) for key in rivals]
        if turn.key:
            ahead[turn.key] += 1
    return found
