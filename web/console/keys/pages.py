"""The API keys: who may use the farm, how much, and what they have used."""

import time
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from flask import Response, request
from werkzeug.wrappers import Response as BaseResponse

from shared import clock
from shared.api_keys.api_key import CONSOLE_KEY_ID
from shared.api_keys.limit_use import read_quota_shares
from shared.errors import ApiError
from shared.files.key_storage import SCARCE_SHARE as SCARCE_STORAGE_SHARE
from shared.files.key_storage import read_storage
from shared.languages.catalogues import mark
from shared.list_filters import matches_text
from shared.observability.audit_log import AuditEntry
from shared.observability.request_log import LogFilter
from web.admin import api_keys
from web.admin.models import list_known_models, match_models, split_patterns
from web.admin.schemas.api_keys import Key, KeyRotation
from web.admin.schemas.fields import Empty
from web.console.keys.form import read_change, read_new_key, to_form
from web.console.parts import wording
from web.console.parts.base_url import find_base_url
from web.console.parts.blueprint import blueprint, go_to, render_page
from web.console.parts.formats import DAY
from web.console.parts.last_day import Usage, sum_last_day
from web.console.parts.lists import read_choice, read_choices, read_text, take_page
from web.console.requests.log_search import find_last
from web.services import services

#: Seconds without a request after which a key counts as unused.
UNUSED_SECONDS = 30 * DAY
#: Share of a quota from which a key is short of it.
SCARCE_SHARE = 0.8
#: Newest entries of the audit log among which the page of a key looks for its own, and how many of these it shows.
SEARCHED_CHANGES, SHOWN_CHANGES = 2000, 20
SHOWN_REQUESTS = 20
#: Hours for which a replaced secret may go on -> what the form says.
GRACE_HOURS = {"0": mark("not at all"), "1": mark("1 hour"), "24": mark("1 day"), "168": mark("7 days")}
DEFAULT_GRACE = "24"
ORDERS: dict[str, Callable[[Key, Usage], Any]] = {
    "name": lambda key, _: (key.name or key.id).lower(),
    "state": lambda key, _: api_keys.find_state(key),
    "used": lambda key, _: key.last_used_at,
    "requests": lambda _, usage: usage.get("requests", 0),
    "failed": lambda _, usage: usage.get("failed", 0),
    "tokens": lambda _, usage: usage.get("total_tokens", 0),
    "created": lambda key, _: key.created_at,
}


def sum_usage(**filters: str) -> dict[str, Usage]:
    """Key -> its sums of the last 24 hours."""
    return {row["key"]: row for row in sum_last_day("key", **filters)}


@blueprint.get("/keys")
def keys() -> str:
    states, text, unused = read_choices("state", tuple(wording.KEY_STATES)), read_text("q"), bool(read_text("unused"))
    is_scarce = bool(read_text("scarce"))
    sort, order = read_choice("sort", tuple(ORDERS)), read_choice("order", ("asc", "desc"), "asc")
    usage, now = sum_usage(), time.time()
    found = [
        key
        for key in api_keys.to_schemas(api_keys.open_store().list())
        if (api_keys.find_state(key) in states if states else not key.revoked_at)
        and matches_text(text, key.id, key.name, key.note, key.hint)
        and not (unused and max(key.last_used_at, key.created_at) > now - UNUSED_SECONDS)
    ]
    shares = read_quota_shares(services().redis, found)
    if is_scarce:
        found = [key for key in found if shares.get(key.id, 0) > SCARCE_SHARE]
    if sort:
        found.sort(key=lambda key: ORDERS[sort](key, usage.get(key.id, {})), reverse=order == "desc")
    query = {"states": states, "text": text, "unused": unused, "scarce": is_scarce, "sort": sort, "order": order}
    return render_page(
        "keys.html",
        active="keys",
        query=query,
        listing=take_page(found),
        usage=usage,
        shares=shares,
        scarce_share=SCARCE_SHARE,
        find_state=api_keys.find_state,
    )


@blueprint.get("/keys/new")
def new_key() -> str:
    """An empty form, or with `?like=` the fields of another key."""
    like = read_text("like")
    return show_form({**to_form(api_keys.get_or_404(like)), "name": ""} if like else to_form(None))


@blueprint.post("/keys/new")
def create_key() -> BaseResponse | str:
    """Creates a key, and shows its secret on this page only."""
    try:
        created = api_keys.create_key(read_new_key(request.form))
    except ApiError as error:
        return Response(show_form(request.form, problem=error), error.status)
    return render_page("new_key.html", active="keys", key=created, base_url=find_base_url())


@blueprint.get("/keys/<key_id>")
def key(key_id: str) -> str:
    found = api_keys.get_or_404(key_id)
    return render_page(
        "key.html",
        active="keys",
        key=api_keys.to_schema(found),
        state=api_keys.find_state(found),
        use=api_keys.get_key_use(key_id),
        storage=read_storage(services().redis, key_id),
        bounds=services().files.bounds,
        scarce_storage=SCARCE_STORAGE_SHARE,
        changes=find_changes(key_id),
        base_url=find_base_url(),
        is_own=key_id == CONSOLE_KEY_ID,
        grace_hours=GRACE_HOURS,
        default_grace=DEFAULT_GRACE,
        now=clock.now(),
        usage=sum_usage(key=key_id).get(key_id, {}),
        requests=find_last(LogFilter(key=key_id), SHOWN_REQUESTS),
    )


def find_changes(key_id: str) -> list[AuditEntry]:
    """The last changes of a key."""
    newest = islice(services().audit_log.read_newest_first(), SEARCHED_CHANGES)
    return list(islice((entry for entry in newest if entry.target == key_id), SHOWN_CHANGES))


@blueprint.get("/keys/matches")
def match_patterns() -> str:
    """A part of the form: which of the known models the patterns that were typed allow."""
    patterns = (split_patterns(request.args.get(name, "")) for name in ("models", "pools"))
    return render_page("_key_matches.html", found=match_models(list_known_models(), *patterns))


@blueprint.get("/keys/<key_id>/edit")
def edit_key(key_id: str) -> str:
    return show_form(to_form(api_keys.get_or_404(key_id)), key_id)


@blueprint.post("/keys/<key_id>/edit")
def save_key(key_id: str) -> BaseResponse | str:
    api_keys.get_or_404(key_id)
    try:
        api_keys.update_key(key_id, read_change(request.form))
    except ApiError as error:
        return Response(show_form(request.form, key_id, problem=error), error.status)
    return go_to("key", "key_saved", key_id=key_id)


@blueprint.post("/keys/<key_id>/rotate")
def rotate_key(key_id: str) -> str:
    """Gives the key a new secret, and shows it on this page only."""
    hours = read_choice("grace", tuple(GRACE_HOURS), DEFAULT_GRACE, request.form)
    rotated = api_keys.rotate_key(key_id, KeyRotation(grace_hours=float(hours)))
    return render_page("new_key.html", active="keys", key=rotated, base_url=find_base_url(), is_rotated=True)


@blueprint.post("/keys/<key_id>/end-former")
def end_former_secrets(key_id: str) -> BaseResponse:
    api_keys.end_former_secrets(key_id, Empty())
    return go_to("key", "former_ended", key_id=key_id)


@blueprint.post("/keys/<key_id>/revoke")
def revoke_key(key_id: str) -> BaseResponse:
    api_keys.revoke_key(key_id, Empty())
    return go_to("key", "key_revoked", key_id=key_id)


def show_form(form: Mapping[str, Any], key_id: str = "", problem: ApiError | None = None) -> str:
    words = {
        "resets": {name: wording.translate(wording.RESETS, name) for name in wording.RESETS},
        "bands": {name: wording.translate(wording.BANDS, name) for name in wording.BANDS},
    }
    return render_page("key_form.html", active="keys", form=form, key_id=key_id, problem=problem, **words)
