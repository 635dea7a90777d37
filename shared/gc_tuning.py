"""Tunes Python's cyclic garbage collector to run rarely.

Requests leave few reference cycles, and each collection traverses every live object. With the default thresholds and
five thousand waiting requests, a front spends a third of its time in collections that find nothing.
"""

import gc

#: New objects per collection of generation 0, and collections of each generation per collection of the next.
GC_THRESHOLDS = (50_000, 20, 20)


def tune_gc() -> None:
    """Freezes all live objects, so that no collection visits them. Call it when the process is ready to serve."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
