"""What was used, by whom: a table first, and a chart from it."""

import time
from typing import Any

from web.admin.schemas import UsageQuery
from web.admin.usage import query_usage
from web.console.parts.blueprint import blueprint, render_page
from web.console.parts.formats import DAY
from web.console.parts.lists import read_choice, read_text
from web.languages.translation import mark

#: Range -> seconds, name.
RANGES = {
    "24h": (DAY, mark("24 hours")),
    "7d": (7 * DAY, mark("7 days")),
    "31d": (31 * DAY, mark("31 days")),
    "400d": (400 * DAY, mark("400 days")),
}
#: What to group by -> name; usage is recorded by account, or by key and model.
GROUPS = {
    "time": mark("time"),
    "key": mark("key"),
    "model": mark("model"),
    "pool": mark("pool"),
    "credential": mark("account"),
    "time,key": mark("time and key"),
    "time,model": mark("time and model"),
    "time,credential": mark("time and account"),
    "key,model": mark("key and model"),
}
COLUMNS = ("requests", "failed", "prompt_tokens", "completion_tokens", "total_tokens")
FILTERS = ("key", "pool", "model", "credential")
#: Rows that a page shows; the CSV has all.
SHOWN_ROWS = 500


@blueprint.get("/usage")
def usage() -> str:
    chosen, by = read_choice("range", tuple(RANGES), "24h"), read_choice("by", tuple(GROUPS), "time")
    until = time.time()
    query: dict[str, Any] = {
        "since": until - RANGES[chosen][0],
        "until": until,
        "step": "hour" if chosen in ("24h", "7d") else "day",
        "by": by,
        **{name: read_text(name)[:100] for name in FILTERS},
    }
    rows = query_usage(UsageQuery(**query))
    sort = read_choice("sort", COLUMNS)
    if sort:
        rows.sort(key=lambda row: row[sort], reverse=read_choice("order", ("asc", "desc"), "desc") == "desc")
    return render_page(
        "usage.html",
        active="usage",
        rows=rows[:SHOWN_ROWS],
        more=max(0, len(rows) - SHOWN_ROWS),
        sums={column: sum(row[column] for row in rows) for column in COLUMNS},
        query=query | {"sort": sort, "order": read_choice("order", ("asc", "desc"), "desc"), "range": chosen},
        groups=by.split(","),
        group_choices=GROUPS,
        ranges=RANGES,
        filters={name: query[name] for name in FILTERS if query[name]},
    )
