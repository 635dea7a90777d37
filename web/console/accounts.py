"""The accounts: which one is ill and why, and what can be done about it."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from flask import request
from werkzeug.wrappers import Response as BaseResponse

from shared import names
from shared.credentials.explanation import CAN_SERVE
from shared.credentials.records import STATES, CredentialRecord
from shared.credentials.removal import read_removal
from shared.credentials.summaries import CredentialSummary, list_summaries
from shared.errors import ApiError
from shared.list_filters import matches_text
from shared.observability.durability import read_durability
from shared.observability.request_log import LogFilter
from shared.pacing.account_limits import LIMIT_NAMES
from web.admin import credentials
from web.admin.bulk.resource import find_results
from web.admin.schemas.credentials import CredentialChange, OperationResult, TestParameters
from web.admin.schemas.fields import Empty
from web.admin.telemetry.capacity import read_last_day
from web.admin.telemetry.tape import read_row
from web.console.parts.blueprint import blueprint, go_to, render_page
from web.console.parts.last_day import Usage, sum_last_day
from web.console.parts.lists import read_choice, read_choices, read_text, take_page
from web.console.requests.log_search import find_last
from web.console.timeline.events import SHOWN_ON_ACCOUNT, read_latest
from web.languages.translation import gettext
from web.services import services

#: Requests of an account that its page shows.
SHOWN_REQUESTS = 20
#: Action -> key of the notice that says it was done.
DONE = {"enable": "enabled", "disable": "disabled", "remove": "removed"}
#: Column -> key to sort by.
ORDERS: dict[str, Callable[[CredentialSummary, Usage], Any]] = {
    "state": lambda record, _: (STATES.index(record.state), -record.state_since),
    "label": lambda record, _: (record.label or record.id).lower(),
    "pool": lambda record, _: record.pool,
    "since": lambda record, _: record.state_since,
    "refreshed": lambda record, _: record.refreshed_at,
    "requests": lambda _, usage: usage.get("requests", 0),
    "failed": lambda _, usage: usage.get("failed", 0),
    "tokens": lambda _, usage: usage.get("total_tokens", 0),
    "added": lambda record, _: record.added_at,
}


@dataclass(frozen=True)
class AccountQuery:
    """Which accounts, and in which order."""

    pool: str
    states: tuple[str, ...]
    text: str
    sort: str
    order: str
    #: An operation on many accounts, '' for none, and what has become of them in it, '' for anything.
    bulk: str = ""
    outcome: str = ""

    @property
    def is_empty(self) -> bool:
        return not (self.pool or self.states or self.text or self.bulk)

    def selects(self, record: CredentialSummary) -> bool:
        return (
            self.pool in ("", record.pool)
            and (not self.states or record.state in self.states)
            and matches_text(self.text, record.id, record.label, record.account, record.reason)
        )


def read_query() -> AccountQuery:
    order = read_choice("order", ("asc", "desc"), "asc")
    return AccountQuery(
        pool=read_text("pool"),
        states=read_choices("state", STATES),
        text=read_text("q"),
        sort=read_choice("sort", tuple(ORDERS)),
        order=order,
        bulk=read_text("bulk"),
        outcome=read_text("outcome"),
    )


def find_accounts(query: AccountQuery) -> list[CredentialSummary]:
    records = list_summaries(services().redis, credentials.list_all_pools())
    if query.bulk:
        results = find_results(query.bulk, query.outcome)
        records = [record for record in records if record.id in results]
    return [record for record in records if query.selects(record)]


def read_records(accounts: Sequence[CredentialSummary]) -> Sequence[CredentialRecord]:
    return credentials.open_store().read([(account.pool, account.id, account.state) for account in accounts])


def sum_usage() -> dict[str, Usage]:
    """Credential -> its sums of the last 24 hours."""
    return {row["credential"]: row for row in sum_last_day("credential")}


@blueprint.get("/accounts")
def accounts() -> str:
    query, usage = read_query(), sum_usage()
    found = find_accounts(query)
    if query.sort:
        key = ORDERS[query.sort]
        found.sort(key=lambda record: key(record, usage.get(record.id, {})), reverse=query.order == "desc")
    page = take_page(found)
    return render_page(
        "accounts.html",
        active="accounts",
        query=query,
        listing=page,
        accounts=credentials.to_schemas(read_records(page.entries), is_masked=True),
        usage=usage,
        tally=Counter(record.state for record in found),
        totals=sum_totals(found, usage),
        states=STATES,
        serving_rule=CAN_SERVE.rule,
        pools=credentials.list_configured_pools(),
    )


def sum_totals(records: list[CredentialSummary], usage: dict[str, Usage]) -> dict[str, int]:
    """Sums over all accounts that match, not only those of the page."""
    rows = [usage.get(record.id, {}) for record in records]
    return {name: sum(row.get(name, 0) for row in rows) for name in ("requests", "failed", "total_tokens")}


def change_account(credential_id: str, action: str) -> bool:
    """Returns False if the account has gone meanwhile, or can't be changed so. Raises ApiError."""
    changes: dict[str, Callable[[], object]] = {
        "enable": lambda: credentials.update_credential(credential_id, CredentialChange(state="active")),
        "disable": lambda: credentials.update_credential(credential_id, CredentialChange(state="disabled")),
        "remove": lambda: credentials.remove_credential(credential_id),
    }
    if action not in changes:
        raise ApiError(400, "invalid_parameter", "action is none of enable, disable, remove", param="action")
    try:
        changes[action]()
    except ApiError as error:
        if error.status not in (404, 409):
            raise
        return False
    return True


@blueprint.get("/accounts/<credential_id>")
def account(credential_id: str) -> str | tuple[str, HTTPStatus]:
    try:
        return show_account(credential_id)
    except ApiError as error:
        removal = read_removal(services().redis, credential_id)
        if error.status != HTTPStatus.NOT_FOUND or removal is None:
            raise
        page = render_page("removed_account.html", active="accounts", account_id=credential_id, removal=removal)
        return page, HTTPStatus.NOT_FOUND


def show_account(credential_id: str, test: OperationResult | None = None) -> str:
    record = credentials.get_or_404(credential_id)
    return render_page(
        "account.html",
        active="accounts",
        account=credentials.to_schema(record),
        history=credentials.credential_history(credential_id).data,
        usage=sum_last_day("time", pool=names.configured_pool(record.pool), credential=credential_id),
        letters=read_row(credential_id),
        work_seconds=read_last_day(credential_id),
        requests=find_last(LogFilter(credential=credential_id), SHOWN_REQUESTS),
        test=test,
        durability=read_durability(services().redis).state,
        fellows=count_fellows(record),
        **read_latest(SHOWN_ON_ACCOUNT, credential_id),
    )


def count_fellows(record: CredentialRecord) -> int:
    """How many others of the pool are in the same state for the same reason: many mean that it isn't this account."""
    if record.state == "active":
        return 0
    others = list_summaries(services().redis, [record.pool])
    return sum((other.state, other.reason) == (record.state, record.reason) for other in others) - 1


@blueprint.post("/accounts/<credential_id>/label")
def label_account(credential_id: str) -> BaseResponse:
    label = request.form.get("label", "")[:200]
    credentials.update_credential(credential_id, CredentialChange(label=label))
    return go_to("account", "label", credential_id=credential_id)


@blueprint.post("/accounts/<credential_id>/limits")
def limit_account(credential_id: str) -> BaseResponse:
    """Sets limits of the account's own; an empty field leaves the limit to the pool."""
    given = {name: request.form.get(name, "").strip()[:20] for name in LIMIT_NAMES}
    try:
        limits = {name: json.loads(text) if text else None for name, text in given.items()}
        change = CredentialChange.model_validate(limits)
    except ValueError:
        raise ApiError(422, "invalid_parameter", gettext("A limit is a number that is not negative.")) from None
    credentials.update_credential(credential_id, change)
    return go_to("account", "limits", credential_id=credential_id)


@blueprint.post("/accounts/<credential_id>/state")
def set_account_state(credential_id: str) -> BaseResponse:
    """Enables, disables or removes one account."""
    action = request.form.get("action", "")
    credentials.get_or_404(credential_id)
    if not change_account(credential_id, action):
        raise ApiError(409, "conflict", "the account can't be changed so in its state")
    if action == "remove":
        return go_to("accounts", DONE[action], 1)
    return go_to("account", DONE[action], 1, credential_id=credential_id)


@blueprint.post("/accounts/<credential_id>/adopt")
def adopt_account(credential_id: str) -> BaseResponse:
    credentials.adopt_credential(credential_id, Empty())
    return go_to("account", "adopted", credential_id=credential_id)


@blueprint.post("/accounts/<credential_id>/test")
def test_account(credential_id: str) -> str:
    """Tests the account with a real refresh and a small chat request, and shows how it went."""
    return show_account(credential_id, credentials.test_credential(credential_id, TestParameters()))


@blueprint.post("/accounts/<credential_id>/refresh")
def refresh_account(credential_id: str) -> BaseResponse | str:
    result = credentials.refresh_credential(credential_id, Empty())
    if not result.ok:
        return show_account(credential_id, result)
    return go_to("account", "refreshed", credential_id=credential_id)
