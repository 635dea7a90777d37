"""Raises the limit of open files: a thousand workers hold two connections each."""

import contextlib
import resource
from collections.abc import Callable

#: Limits to try, the highest first. macOS refuses an infinite one and more than kern.maxfilesperproc, but takes its
#: OPEN_MAX, which is 10,240 (setrlimit(2)).
CANDIDATES = (1_048_576, 245_760, 65_536, 24_576, 10_240)
SetLimit = Callable[[int, tuple[int, int]], None]


def raise_file_limit(set_limit: SetLimit = resource.setrlimit) -> None:
    """Raises the soft limit, usually 1,024, as far as the system lets it; never lowers it, and never fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    highest = CANDIDATES[0] if hard == resource.RLIM_INFINITY else min(hard, CANDIDATES[0])
    for limit in (highest, *(candidate for candidate in CANDIDATES if candidate < highest)):
        if limit <= soft:
            return
        with contextlib.suppress(ValueError, OSError):
            set_limit(resource.RLIMIT_NOFILE, (limit, hard))
            return
