"""The planner: how many accounts a past load would have needed. Its form is in the address."""

from web.admin.credentials import list_configured_pools
from web.admin.telemetry.planner import make_plan
from web.admin.telemetry.schemas import PlanQuery
from web.console.parts import wording
from web.console.parts.blueprint import blueprint, render_page
from web.console.parts.lists import read_choice, read_text

#: Bounds of the form's numbers, and what they are without it.
MAX_WAIT_SECONDS, DEFAULT_WAIT, DEFAULT_PERCENT = 3600.0, 5.0, 95.0


@blueprint.get("/plan")
def plan() -> str:
    pools = list_configured_pools()
    query = PlanQuery.model_validate(
        {
            "pool": read_choice("pool", pools, pools[0]),
            "period": read_choice("period", list(wording.PERIODS), next(iter(wording.PERIODS))),
            "wait": read_number("wait", DEFAULT_WAIT, 0.0, MAX_WAIT_SECONDS),
            "percent": read_number("percent", DEFAULT_PERCENT, 1.0, 100.0),
        }
    )
    return render_page("plan.html", active="plan", query=query, plan=make_plan(query), pools=pools)


def read_number(name: str, default: float, least: float, most: float) -> float:
    """A number of the query within bounds; anything else is the default."""
    try:
        value = float(read_text(name)[:10])
    except ValueError:
        return default
    return value if least <= value <= most else default
