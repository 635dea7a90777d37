"""Exponential backoff. No I/O."""

#: Enough to reach any bound, and far from where a float overflows.
MAX_DOUBLINGS = 64


def compute_backoff(first: float, longest: float, doublings: int) -> float:
    """Seconds to wait: `first`, doubled so many times, and at most `longest`; without jitter."""
    return min(longest, first * 2.0 ** min(doublings, MAX_DOUBLINGS))
