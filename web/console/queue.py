"""The queue: who waits in the order of service, who runs, and whose share it is."""

import json
from dataclasses import asdict
from typing import Any

from web.admin.telemetry.queue import list_running, list_waiting
from web.admin.telemetry.schemas import QueueQuery, TapeQuery, WaitingQuery
from web.admin.telemetry.tape import get_tape, name_order, read_newest_columns
from web.console.live.fragments import LIVE_PAGES, LivePage
from web.console.live.stream import INTERVALS, read_interval
from web.console.parts.blueprint import blueprint, render_page

#: Waiting requests of each pool, and running ones of all, that are shown: they are rendered once a second.
SHOWN = 50
#: Seconds of the tape in each update: more than the slowest rate, so that what came late is mended.
NEWEST_SECONDS = 10


@blueprint.get("/queue")
def queue() -> str:
    tape = get_tape(TapeQuery())
    return render_page(
        "queue.html",
        active="queue",
        **read_now(),
        every=read_interval(),
        intervals=INTERVALS,
        tape=tape,
        tape_order=name_order([row.credential for row in tape.data]),
    )


def read_now() -> dict[str, Any]:
    """What the page shows of the moment."""
    return {
        "queues": list_waiting(WaitingQuery(limit=SHOWN)).data,
        "running": list_running(QueueQuery(limit=SHOWN)).data,
    }


def read_tape_event() -> dict[str, str]:
    """What web/static/tape.js adds to the tape."""
    return {"tape": json.dumps(asdict(read_newest_columns(NEWEST_SECONDS)), separators=(",", ":"))}


LIVE_PAGES["queue"] = LivePage("_queue_live.html", lambda _: read_now(), read_tape_event)
