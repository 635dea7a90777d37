"""The queue: who waits in the order of service, who runs, and whose share it is."""

from web.admin.telemetry.queue import list_running, list_waiting
from web.admin.telemetry.schemas import QueueQuery
from web.console.parts.blueprint import blueprint, render_page
from web.console.parts.lists import read_choice

#: Requests of each pool that are shown.
SHOWN = 100
#: Seconds between two looks; '0' for none.
INTERVALS = ("1", "5", "0")


@blueprint.get("/queue")
def queue() -> str:
    query = QueueQuery(limit=SHOWN)
    return render_page(
        "queue.html",
        active="queue",
        queues=list_waiting(query).data,
        running=list_running(query).data,
        every=read_choice("every", INTERVALS, INTERVALS[1]),
        intervals=INTERVALS,
    )
