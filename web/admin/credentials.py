"""Admin API: credentials. Responses never contain a token."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

from flask import Response

from shared.credentials import private
from shared.credentials.activity.description import describe_credentials
from shared.credentials.draining import wait_until_idle
from shared.credentials.importing.entries import Entry, read_entries, read_texts
from shared.credentials.records import CredentialRecord, mask_account
from shared.credentials.store import Credentials
from shared.credentials.token_origin import TokenOrigins, origin_for_new_tokens
from shared.errors import ApiError, FarmError, NotFound
from shared.list_filters import matches_text, sort_by
from shared.pacing.account_limits import LIMIT_NAMES
from shared.protocol.credential_operations import CredentialOperation, NoWorkerProcess
from web.admin.api import router
from web.admin.audit_log import name_actor, record_change
from web.admin.etags import check_if_match, set_etag
from web.admin.openapi import to_response
from web.admin.pagination import paginate
from web.admin.schemas.credentials import (
    ChangedCredentials,
    Credential,
    CredentialChange,
    CredentialPage,
    CredentialQuery,
    Drain,
    EnableQuery,
    History,
    ImportResult,
    LineReport,
    NewCredentials,
    NewCredentialText,
    OperationResult,
    StateEntry,
    TestParameters,
)
from web.admin.schemas.fields import Empty
from web.services import services


def open_store() -> Credentials:
    return Credentials(services().redis)


def list_configured_pools() -> list[str]:
    return [pool.name for pool in services().pool_selector]


def list_all_pools() -> list[str]:
    return private.list_all_pools(services().redis, list_configured_pools())


def get_or_404(credential_id: str) -> CredentialRecord:
    """Raises ApiError 404."""
    try:
        return open_store().get(credential_id, list_all_pools())
    except NotFound as error:
        raise ApiError(404, "not_found", str(error)) from None


def to_schema(record: CredentialRecord) -> Credential:
    """The credential as responses have it."""
    return to_schemas([record])[0]


def to_schemas(records: Sequence[CredentialRecord], *, is_masked: bool = False) -> list[Credential]:
    """The credentials as responses have them; `is_masked`: with their accounts masked, for lists."""
    descriptions = describe_credentials(services().redis, records, services().settings.pools)
    return [Credential(**description.to_dict(is_masked=is_masked)) for description in descriptions]


def record_version(record: CredentialRecord) -> object:
    """The parts that operators can change; ETags cover only these, because the rest changes all the time."""
    return record.label, record.state == "disabled", *record.own_limits.to_dict().items()


@router.route("GET", "/credentials", query=CredentialQuery, response=CredentialPage, errors=(404,))
def list_credentials(query: CredentialQuery) -> CredentialPage:
    """List credentials by pool, oldest first."""
    pools = [name for name in list_all_pools() if query.pool in ("", name)]
    records = sort_by(filter(partial(is_wanted, query), open_store().list(pools)), query.sort)
    data, next_cursor = paginate(records, [record.id for record in records], query.limit, query.cursor)
    return CredentialPage(
        data=to_schemas(data, is_masked=True),
        next=next_cursor,
        states=Counter(record.state for record in records),
    )


def is_wanted(query: CredentialQuery, record: CredentialRecord) -> bool:
    """Whether a filter matches. Accounts are searched as lists show them, so that nobody can guess one by searching."""
    return (
        (not query.state or record.state in query.state.split(","))
        and query.reason in ("", record.reason)
        and matches_text(query.text, record.id, record.label, mask_account(record.account))
    )


@router.route("POST", "/credentials", body=NewCredentials, response=ImportResult, errors=(404,))
def add_credentials(body: NewCredentials) -> ImportResult:
    """Add refresh tokens and report the outcome of each; with `dry_run`, only what it would be."""
    return import_entries(body, list(read_texts(body.tokens, find_kind(body.pool))))


@router.route("POST", "/credentials/import", body=NewCredentialText, response=ImportResult, errors=(404,))
def import_credentials(body: NewCredentialText) -> ImportResult:
    """Add the refresh tokens in a text, as `./farm credentials import` does. What lies beside them is not stored."""
    return import_entries(body, list(read_entries(body.text.splitlines(), find_kind(body.pool))))


def find_kind(pool: str) -> str:
    """The kind of the pool's credentials. Raises ApiError 404."""
    if pool not in list_configured_pools():
        raise ApiError(404, "not_found", f"no pool {pool!r}")
    return services().settings.pool(pool).credential_kind


def import_entries(body: NewCredentials | NewCredentialText, entries: list[Entry]) -> ImportResult:
    try:
        pool = services().settings.pool(body.pool)
        if body.dry_run:
            report = open_store().preview_import(body.pool, entries, pool.credential_kind)
        else:
            origin = origin_for_new_tokens(pool)
            report = open_store().import_entries(body.pool, entries, body.label, origin, pool.credential_kind)
            record_change("credentials.add", body.pool, report.to_counts())
    except FarmError as error:
        raise ApiError(503, "not_ready", str(error), "server_error") from None
    lines = [LineReport.model_validate(vars(line)) for line in report.lines]
    return ImportResult(**report.to_counts(), lines=lines)


@router.route("GET", "/credentials/<credential_id>", response=Credential)
def get_credential(credential_id: str) -> Response:
    """Get a credential; send its ETag as If-Match to detect concurrent changes."""
    record = get_or_404(credential_id)
    return set_etag(to_response(to_schema(record), 200), record_version(record))


@router.route("PATCH", "/credentials/<credential_id>", body=CredentialChange, response=Credential, errors=(409, 412))
def update_credential(credential_id: str, body: CredentialChange) -> Response:
    """Change the label of a credential or limits of its own, disable it or reactivate it."""
    record = get_or_404(credential_id)
    check_if_match(record_version(record))
    if body.state == "active" and record.state == "foreign":
        raise ApiError(409, "conflict", record.reason)
    if body.label is not None:
        open_store().set_label(record.pool, record.id, body.label)
    if limits := body.model_dump(include=set(LIMIT_NAMES) & body.model_fields_set):
        open_store().set_limits(record.id, limits)
    if body.state == "active":
        open_store().enable(record.pool, record.id)
    elif body.state == "disabled":
        open_store().disable(record.pool, record.id)
    record_change("credential.update", credential_id, body.model_dump(exclude_unset=True))
    changed = get_or_404(credential_id)
    return set_etag(to_response(to_schema(changed), 200), record_version(changed))


@router.route("POST", "/credentials/enable", body=EnableQuery, response=ChangedCredentials)
def enable_credentials(body: EnableQuery) -> ChangedCredentials:
    """Reactivate all credentials that have been in a state since a time, after an outage for example."""
    records = [
        record
        for record in open_store().list(name for name in list_all_pools() if body.pool in ("", name))
        if record.state == body.state and record.state_since >= body.since
    ]
    for record in records:
        open_store().enable(record.pool, record.id)
        record_change("credential.enable", record.id)
    return ChangedCredentials(ids=[record.id for record in records])


@router.route("POST", "/credentials/<credential_id>/adopt", body=Empty, response=Credential, errors=(409,))
def adopt_credential(credential_id: str, body: Empty) -> Response:
    """Bind a foreign credential to its pool's present token endpoint, to which its token is sent from now on."""
    record = get_or_404(credential_id)
    try:
        TokenOrigins(services().redis).adopt(services().settings.pool(record.pool), record.id)
    except FarmError as error:
        raise ApiError(409, "conflict", str(error)) from None
    record_change("credential.adopt", credential_id)
    return to_response(to_schema(get_or_404(credential_id)), 200)


@router.route("POST", "/credentials/<credential_id>/drain", body=Drain, response=Credential)
def drain_credential(credential_id: str, body: Drain) -> Credential:
    """Disable a credential and wait until its running request has ended, which `in_flight` tells; it takes no other."""
    record = get_or_404(credential_id)
    open_store().disable(record.pool, record.id)
    record_change("credential.drain", credential_id)
    for _ in wait_until_idle(services().redis, [record.id], body.seconds):
        pass
    return to_schema(get_or_404(credential_id))


@router.route("DELETE", "/credentials/<credential_id>", status=204)
def remove_credential(credential_id: str) -> None:
    """Delete a credential and its tokens."""
    record = get_or_404(credential_id)
    private.remove_credential(services().redis, record.pool, record.id, name_actor())
    record_change("credential.remove", credential_id)


@router.route("GET", "/credentials/<credential_id>/history", response=History)
def credential_history(credential_id: str) -> History:
    """List the state changes of a credential with their reasons, newest first."""
    get_or_404(credential_id)
    return History(data=[StateEntry(**asdict(change)) for change in open_store().get_history(credential_id)])


@router.route("POST", "/credentials/<credential_id>/test", body=TestParameters, response=OperationResult)
def test_credential(credential_id: str, body: TestParameters) -> OperationResult:
    """Test a credential with a real token refresh and a minimal chat request, and report the timings.

    Its worker runs the test between two requests.
    """
    return run_operation(credential_id, "test", body.model)


@router.route("POST", "/credentials/<credential_id>/refresh", body=Empty, response=OperationResult)
def refresh_credential(credential_id: str, body: Empty) -> OperationResult:
    """Refresh the access token of a credential now."""
    return run_operation(credential_id, "refresh")


@router.route("POST", "/credentials/<credential_id>/revoke", body=Empty, response=OperationResult)
def revoke_credential(credential_id: str, body: Empty) -> OperationResult:
    """Revoke a credential at the upstream (RFC 7009), if its pool has a revocation endpoint, and disable it."""
    return run_operation(credential_id, "revoke")


def run_operation(credential_id: str, kind: str, model: str = "") -> OperationResult:
    """Has a worker process run the operation. Raises ApiError 503 if none carries it out in time."""
    record = get_or_404(credential_id)
    if record.state == "foreign":
        return OperationResult(ok=False, error=record.reason)
    record_change(f"credential.{kind}", credential_id)
    try:
        return OperationResult(
            **services().operations.request(CredentialOperation(record.pool, record.id, kind, model))
        )
    except NoWorkerProcess as error:
        raise ApiError(503, "no_worker", str(error), "server_error") from None
