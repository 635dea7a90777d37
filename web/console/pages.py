"""All pages of the console: each module registers its own on the blueprint when it is imported."""

from web.console import (
    accounts,
    bulk,
    capacity,
    imports,
    overview,
    planner,
    playground,
    pools,
    queue,
    sign_ins,
    system,
    usage,
)
from web.console.batches import pages as batches
from web.console.files import pages as files
from web.console.keys import pages as keys
from web.console.live import stream
from web.console.parts.blueprint import blueprint
from web.console.requests import pages as requests
from web.console.timeline import alerts, events

MODULES = (
    *(overview, accounts, bulk, imports, sign_ins, queue, capacity, keys, usage, requests, batches, files),
    *(playground, planner, pools, system, alerts, events, stream),
)
__all__ = ("MODULES", "blueprint")
