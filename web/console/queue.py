"""The queue: who waits in the order of service, who runs, and whose share it is."""

from typing import Any

from web.admin.telemetry.queue import list_running, list_waiting
from web.admin.telemetry.schemas import QueueQuery
from web.console.live.fragments import LIVE_PAGES, LivePage
from web.console.live.stream import INTERVALS, read_interval
from web.console.parts.blueprint import blueprint, render_page

#: Requests of each pool that are shown.
SHOWN = 100


@blueprint.get("/queue")
def queue() -> str:
    return render_page("queue.html", active="queue", **read_now(), every=read_interval(), intervals=INTERVALS)


def read_now() -> dict[str, Any]:
    """What the page shows of the moment."""
    query = QueueQuery(limit=SHOWN)
    return {"queues": list_waiting(query).data, "running": list_running(query).data}


LIVE_PAGES["queue"] = LivePage("_queue_live.html", read_now)
