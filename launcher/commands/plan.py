"""`./farm plan`: how many accounts a load of the past would have needed."""

from dataclasses import asdict

import click

from launcher.number_option import NumberRange
from launcher.output import exit_on_error, format_time, json_option, print_json, print_line, print_table
from launcher.selection import select_pool
from launcher.store import open_store
from launcher.time_option import TIME
from shared.errors import BadField
from shared.queue_view.plan import PERIODS, Plan, find_period, make_plan
from shared.queue_view.planner import Wish

#: Requests of a load: here nobody else waits meanwhile.
MAX_REQUESTS = 50_000


@click.command()
@click.option("--pool", default="", help="This pool; the first one without it.")
@click.option("--wait", type=NumberRange(0, 3600), default=5.0, show_default=True, help="Seconds.")
@click.option(
    "--percent",
    type=NumberRange(1, 100),
    default=95.0,
    show_default=True,
    help="Share of the requests that wait no longer than that.",
)
@click.option(
    "--period", type=click.Choice([*PERIODS]), default="busiest-hour", show_default=True, help="Which load of the past."
)
@click.option("--since", type=TIME, help="Start of the load, in place of --period, with --until.")
@click.option("--until", type=TIME, help="Its end.")
@json_option
@exit_on_error
def plan(
    pool: str, wait: float, percent: float, period: str, since: float | None, until: float | None, as_json: bool
) -> None:
    """Plan how many accounts a past load needs for most of its requests to wait no longer than wished."""
    settings, redis = open_store()
    if (since is None) != (until is None):
        raise BadField("until", "--since and --until belong together")
    name = select_pool(settings, pool or settings.pool_names[0])
    start, end = find_period(redis, name, period) if since is None or until is None else (since, until)
    found = make_plan(redis, name, start, end, Wish(wait, percent / 100), most=MAX_REQUESTS)
    if as_json:
        print_json(asdict(found))
        return
    for line in describe(found):
        print_line(line)
    rows = [
        (
            *(each.accounts, f"{each.wait:.1f}", f"{each.share_in_time:.1%}"),
            each.p50,
            each.p95,
            each.p99,
            f"{each.utilisation:.0%}",
        )
        for each in found.outlooks
    ]
    if rows:
        print_table(("ACCOUNTS", f"P{percent:g} WAIT", "IN TIME", "P50", "P95", "P99", "UTILISATION"), rows)


def describe(plan: Plan) -> list[str]:
    """The answer, and the load that it is about."""
    load = f"{plan.requests} requests of pool {plan.pool}, {format_time(plan.since)} to {format_time(plan.until)}"
    if not plan.requests:
        return [f"no load: {load}"]
    cut = ", the latest of the period" if plan.is_cut else ""
    refused = f", and {plan.refused} more refused by a full queue" if plan.refused else ""
    share = "" if plan.service_share is None else f"; accounts could serve {plan.service_share:.0%} of the time"
    answers = (show(plan.accounts_with_rests), show(plan.accounts), show(plan.accounts_by_erlang_c), plan.present)
    return [
        f"load: {load}{cut}{refused}",
        f"{plan.mean_seconds:.2f} s each, {plan.offered:.1f} accounts busy on average{share}",
        "accounts needed: {} ({} that never rest, {} by Erlang C); {} are active now".format(*answers),
    ]


def show(accounts: int | None) -> str:
    return "more than can be tried" if accounts is None else str(accounts)
