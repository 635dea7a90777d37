"""What was used, by whom: a table first, and a chart from it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest, nsmallest
from typing import Any

from shared.languages.catalogues import mark
from shared.observability.usage import METRICS, GroupSums, UsageSums
from web.admin.schemas.usage import UsageQuery
from web.admin.usage import build_rows, build_sums_query, sum_up
from web.console.parts.blueprint import blueprint, render_page
from web.console.parts.formats import DAY
from web.console.parts.lists import read_choice, read_text
from web.services import services

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
EMPTY_SUMS = [0] * len(METRICS)
#: Rows that a page shows; the CSV has all. Most of them of which a chart is drawn.
SHOWN_ROWS, MAX_BARS = 250, 60


@blueprint.get("/usage")
def usage() -> str:
    chosen, by = read_choice("range", tuple(RANGES), "24h"), read_choice("by", tuple(GROUPS), "time")
    until, is_short = time.time(), chosen == "24h" or (chosen == "7d" and by == "time")
    query: dict[str, Any] = {
        "since": until - RANGES[chosen][0],
        "until": until,
        "step": "hour" if is_short or "time" not in by else "day",
        "by": by,
        **{name: read_text(name)[:100] for name in FILTERS},
    }
    asked, order = UsageQuery(**query), read_choice("order", ("asc", "desc"), "desc")
    sort = read_choice("sort", COLUMNS, "" if by.startswith("time") else "requests")
    shown = read_sorted(asked, sort, order) if sort else read_newest(asked)
    return render_page(
        "usage.html",
        active="usage",
        rows=build_rows(asked, shown.groups),
        has_more=shown.has_more,
        has_chart=by == "time" or ("," not in by and len(shown.groups) <= MAX_BARS),
        sums=shown.sums,
        query=query | {"sort": sort, "order": order, "range": chosen},
        groups=by.split(","),
        group_choices=GROUPS,
        ranges=RANGES,
        filters={name: query[name] for name in FILTERS if query[name]},
    )


@dataclass(frozen=True)
class ShownGroups:
    """The groups that the page shows, whether there are more, and the sums of all by column."""

    groups: Sequence[GroupSums]
    has_more: bool
    sums: dict[str, int]


def read_sorted(query: UsageQuery, column: str, order: str) -> ShownGroups:
    """Those with the most, or the least, in a column."""
    found, choose = sum_up(query), nlargest if order == "desc" else nsmallest
    shown = choose(SHOWN_ROWS, found, key=lambda group: (group.read(column), group.names))
    return ShownGroups(shown, len(found) > SHOWN_ROWS, add_up(found))


def read_newest(query: UsageQuery) -> ShownGroups:
    """By time alone in its order, else the newest and largest first. Hours that are not shown are only summed up."""
    found = list[GroupSums]()
    for groups in UsageSums(services().redis).sum_up_newest_first(build_sums_query(query)):
        found += groups
        if len(found) > SHOWN_ROWS:
            break
    has_more = len(found) > SHOWN_ROWS
    sums = add_up(sum_up(query.model_copy(update={"by": ""})) if has_more else found)
    if query.by == "time":
        return ShownGroups(sorted(found)[-SHOWN_ROWS:], has_more, sums)
    found.sort(key=lambda group: (-group.names[0], -group.read("requests"), group.names))
    return ShownGroups(found[:SHOWN_ROWS], has_more, sums)


def add_up(found: Sequence[GroupSums]) -> dict[str, int]:
    """The sums of all groups, by column."""
    sums = GroupSums((), [sum(column) for column in zip(*(group.sums for group in found), strict=True)] or EMPTY_SUMS)
    return {column: sums.read(column) for column in COLUMNS}
