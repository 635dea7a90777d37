"""Operations on many accounts: begun from the list, then a page with their progress and what has become of each."""

import time
from collections.abc import Sequence
from http import HTTPStatus

from flask import redirect, request
from werkzeug.wrappers import Response as BaseResponse

from shared.credentials.records import CredentialRecord
from shared.errors import ApiError
from web.admin.bulk import resource
from web.console.accounts import find_accounts, read_query, read_records
from web.console.parts.blueprint import blueprint, build_own_url, go_to, render_page
from web.console.parts.wording import BULK_ACTIONS

#: Action -> key of the notice that says it was done, for those that end at once: they lead back to the list.
DONE = {"enable": "enabled", "disable": "disabled", "relabel": "relabelled", "remove": "removed"}
#: Seconds that the list waits for such an operation, and between two looks at it.
WAIT_SECONDS, LOOK_SECONDS = 2.0, 0.02
#: Seconds between two looks of the page at an operation that runs.
REFRESH_SECONDS = 1


@blueprint.post("/accounts")
def change_accounts() -> BaseResponse | str:
    """Works on the selected accounts, or with `all` those that match the filter; a removal is confirmed first."""
    action, records = request.form.get("action", ""), select_accounts()
    if action not in BULK_ACTIONS:
        raise ApiError(400, "invalid_parameter", f"action is none of {', '.join(BULK_ACTIONS)}", param="action")
    if not records:
        return go_to("accounts", "nothing")
    if action == "remove" and "sure" not in request.form:
        return render_page("remove_accounts.html", active="accounts", ids=[record.id for record in records])
    label = request.form.get("label", "")[:200] if action == "relabel" else None
    operation = resource.start(action, records, label)
    if action in DONE and is_done_soon(operation, len(records)):
        return redirect(build_own_url(done=DONE[action], count=len(records)), HTTPStatus.SEE_OTHER)
    return go_to("bulk", operation_id=operation)


def select_accounts() -> Sequence[CredentialRecord]:
    matching = find_accounts(read_query())
    if "all" in request.form:
        return read_records(matching)
    chosen = set(request.form.getlist("id"))
    return read_records([account for account in matching if account.id in chosen])


def is_done_soon(operation: str, count: int) -> bool:
    """Whether all went well within a moment."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (progress := resource.get_bulk(operation)).state == "running" and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    return progress.outcomes == {"ok": count}


@blueprint.get("/bulk/<operation_id>")
def bulk(operation_id: str) -> str:
    progress = resource.get_bulk(operation_id)
    outcomes = sorted(progress.outcomes.items(), key=lambda found: (found[0] != "ok", -found[1]))
    return render_page(
        "bulk.html", active="accounts", operation=progress, outcomes=outcomes, refresh_seconds=REFRESH_SECONDS
    )


@blueprint.post("/bulk/<operation_id>/cancel")
def cancel_bulk(operation_id: str) -> BaseResponse:
    """What is begun is ended."""
    resource.cancel_bulk(operation_id)
    return go_to("bulk", operation_id=operation_id)
