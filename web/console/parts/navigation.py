"""The console's pages in the order of its menu."""

from shared.languages.catalogues import mark

#: Endpoint -> name in the menu.
PAGES = {
    "overview": mark("Overview"),
    "accounts": mark("Accounts"),
    "queue": mark("Queue"),
    "capacity": mark("Capacity"),
    "keys": mark("Keys"),
    "usage": mark("Usage"),
    "requests": mark("Requests"),
    "batches": mark("Batches"),
    "files": mark("Files"),
    "playground": mark("Playground"),
    "plan": mark("Planner"),
    "pools": mark("Pools"),
    "events": mark("Events"),
    "system": mark("System"),
}
#: Those that only administrators may open.
ADMIN_PAGES = frozenset({"playground"})
