"""How often Python looks for cycles: rarely, because the farm's requests leave few, and each look visits what lives.

With its defaults, five thousand waiting requests make a third of a web process's time a search that finds nothing.
"""

import gc

#: New objects before a look at them, such looks before one at their elders, and of those before one at all.
THRESHOLDS = (50_000, 20, 20)


def tune_gc() -> None:
    """Leaves out of every look what is here now; called when a process is ready to serve."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
