"""One RQ worker bound to a leased credential: waits for a job, runs it, records how it ended."""

from typing import Any


def relay(request: dict[str, Any]) -> None:
    """What the farm's jobs name as their function; a worker without a credential can't run them."""
    raise RuntimeError("this job runs only in a worker of the farm, which is bound to a credential")
