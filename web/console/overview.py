"""The first page: whether the farm serves, what needs a person, and how to begin."""

from typing import Any
from urllib.parse import urlsplit

from flask import request

from shared.api_keys.api_key import CONSOLE_KEY_ID
from shared.credentials.pool_rest import API_KEY_REFUSED
from shared.protocol.relay_queue import BANDS
from web.admin import api_keys, pools
from web.admin.access.session_cookie import is_behind_tls
from web.admin.schemas.pools import Live, LivePool
from web.admin.telemetry.capacity import get_capacity
from web.console.live.fragments import LIVE_PAGES, LivePage
from web.console.live.stream import INTERVALS, read_interval
from web.console.parts.base_url import find_base_url
from web.console.parts.blueprint import blueprint, render_page
from web.console.parts.last_day import sum_last_day
from web.console.parts.wording import DURABILITY, FILE_STORE
from web.console.timeline.events import SHOWN_ON_OVERVIEW, read_latest
from web.languages.translation import gettext, ngettext

#: Share of a pool's accounts in a cooldown from which the page warns.
COOLING_SHARE = 0.2
#: States of durability that need a person.
DURABILITY_ALERTS = ("write_error", "no_aof", "slow", "replicas")
#: Hosts to which the browser speaks without a network.
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")


@blueprint.get("/")
def overview() -> str:
    values = read_now()
    return render_page(
        "overview.html",
        active="overview",
        **values,
        every=read_interval(),
        intervals=INTERVALS,
        notices=list_connection_alerts(),
        capacity=get_capacity(),
        hours=sum_last_day("time"),
        has_accounts=any(sum(pool.credentials.values()) for pool in values["live"].pools),
        has_keys=any(key.id != CONSOLE_KEY_ID for key in api_keys.open_store().list()),
        base_url=find_base_url(),
        **read_latest(SHOWN_ON_OVERVIEW),
    )


def read_now() -> dict[str, Any]:
    """What the page shows of the moment."""
    live = pools.live()
    return {"live": live, "bands": BANDS, "list_alerts": list_alerts}


LIVE_PAGES["overview"] = LivePage("_overview_live.html", lambda _: read_now())


def list_alerts(live: Live) -> list[tuple[str, str]]:
    """What needs a person, the worst first: the pool, '' for all of them, and a sentence."""
    found = [] if live.worker_processes else [("", gettext("No worker process runs: nothing is served."))]
    for pool in live.pools:
        found += [(pool.name, alert) for alert in list_pool_alerts(pool)]
    if live.durability.state in DURABILITY_ALERTS:
        found.append(("", gettext(DURABILITY[live.durability.state])))
    if live.file_store.state != "ok":
        found.append(("", gettext(FILE_STORE[live.file_store.state])))
    return found


def list_connection_alerts() -> list[str]:
    """What the reader should know of the way by which the page has come."""
    if is_behind_tls() or urlsplit(f"//{request.host}").hostname in LOOPBACK_HOSTS:
        return []
    return [gettext("This page came over plain HTTP: whoever is on the way can read the admin token.")]


def list_pool_alerts(pool: LivePool) -> list[str]:
    found, states = [], pool.credentials
    if pool.paused_since:
        found.append(gettext("the pool is paused; its requests wait until it is resumed."))
    if pool.upstream_down:
        sentence = gettext("the upstream is down (%(reason)s): requests wait, and now and then one tries it again.")
        found.append(sentence % {"reason": pool.upstream_failure})
    if pool.token_endpoint_failure == API_KEY_REFUSED:
        found.append(gettext("the upstream refuses several API keys and accepts none."))
    elif pool.token_endpoint_failure:
        found.append(gettext("the token endpoint fails for several accounts."))
    if dead := states.get("dead", 0):
        found.append(ngettext("one account is dead.", "%(count)s accounts are dead.", dead) % {"count": dead})
    if foreign := states.get("foreign", 0):
        sentence = ngettext(
            "one account belongs to another token endpoint.",
            "%(count)s accounts belong to another token endpoint.",
            foreign,
        )
        found.append(sentence % {"count": foreign})
    cooling = states.get("cooling", 0)
    if cooling > COOLING_SHARE * (states.get("active", 0) + cooling):
        found.append(
            ngettext("one account is cooling.", "%(count)s accounts are cooling.", cooling) % {"count": cooling}
        )
    return found
