"""One RQ worker bound to a leased credential: waits for a job, runs it, settles it."""

from typing import Any


def relay(request: dict[str, Any]) -> None:
    """The function that the farm's jobs name. It raises RuntimeError, because only a FarmWorker can run them."""
    raise RuntimeError("this job runs only in a worker of the farm, which is bound to a credential")
