"""Credentials by the admin API: tokens go in, states come out, and no token ever does."""

from flask import Response

from shared.credentials import private
from shared.credentials.records import CredentialRecord
from shared.credentials.store import Credentials
from shared.errors import ApiError, FarmError, NotFound
from shared.protocol.credential_operations import CredentialOperation, CredentialOperations, NoWorkerProcess
from web.admin.api import router
from web.admin.audit_log import record_change
from web.admin.etags import check_if_match, set_etag
from web.admin.openapi import to_response
from web.admin.pagination import paginate
from web.admin.schemas import (
    Credential,
    CredentialChange,
    CredentialPage,
    CredentialQuery,
    Empty,
    History,
    ImportResult,
    LineReport,
    NewCredentials,
    OperationResult,
    StateEntry,
    TestParameters,
)
from web.services import services


def open_store() -> Credentials:
    """The credentials of the farm."""
    return Credentials(services().redis)


def list_pools() -> list[str]:
    """Every configured pool's name."""
    return [pool.name for pool in services().pool_selector]


def list_all_pools() -> list[str]:
    """Those, and the pools of private credentials."""
    return private.list_all_pools(services().redis, list_pools())


def get_or_404(credential_id: str) -> CredentialRecord:
    """A credential. Raises ApiError 404."""
    try:
        return open_store().get(credential_id, list_all_pools())
    except NotFound as error:
        raise ApiError(404, "not_found", str(error)) from None


def to_schema(record: CredentialRecord) -> Credential:
    """A credential as the API gives it."""
    return Credential(**record.to_dict())


def record_version(record: CredentialRecord) -> object:
    """What a person may change of it."""
    return record.label, record.state == "disabled"


@router.route("GET", "/credentials", query=CredentialQuery, response=CredentialPage, errors=(404,))
def list_credentials(query: CredentialQuery) -> CredentialPage:
    """Credentials by pool and age."""
    pools = [name for name in list_all_pools() if query.pool in ("", name)]
    wanted = [one for one in open_store().list(pools) if query.state in ("", one.state)]
    data, following = paginate(wanted, [one.id for one in wanted], query.limit, query.cursor)
    return CredentialPage(data=[to_schema(one) for one in data], next=following)


@router.route("POST", "/credentials", body=NewCredentials, response=ImportResult, errors=(404,))
def add_credentials(body: NewCredentials) -> ImportResult:
    """Add refresh tokens; tells what became of each line."""
    if body.pool not in list_pools():
        raise ApiError(404, "not_found", f"no pool {body.pool!r}")
    try:
        report = open_store().import_lines(body.pool, body.tokens, body.label)
    except FarmError as error:
        raise ApiError(503, "not_ready", str(error), "server_error") from None
    record_change("credentials.add", body.pool, report.to_counts())
    lines = [LineReport.model_validate(vars(line)) for line in report.lines]
    return ImportResult(**report.to_counts(), lines=lines)


@router.route("GET", "/credentials/<credential_id>", response=Credential)
def get_credential(credential_id: str) -> Response:
    """One credential; its ETag can be sent back as If-Match."""
    record = get_or_404(credential_id)
    return set_etag(to_response(to_schema(record), 200), record_version(record))


@router.route("PATCH", "/credentials/<credential_id>", body=CredentialChange, response=Credential, errors=(412,))
def update_credential(credential_id: str, body: CredentialChange) -> Response:
    """Change its label, take it out of service or put it back."""
    record = get_or_404(credential_id)
    check_if_match(record_version(record))
    if body.label is not None:
        open_store().set_label(record.pool, record.id, body.label)
    if body.state == "active":
        open_store().enable(record.pool, record.id)
    elif body.state == "disabled":
        open_store().set_state(record.pool, record.id, "disabled", "by a person")
    record_change("credential.update", credential_id, body.model_dump(exclude_unset=True))
    changed = get_or_404(credential_id)
    return set_etag(to_response(to_schema(changed), 200), record_version(changed))


@router.route("DELETE", "/credentials/<credential_id>", status=204)
def remove_credential(credential_id: str) -> None:
    """Forget a credential and its tokens."""
    record = get_or_404(credential_id)
    private.remove_credential(services().redis, record.pool, record.id)
    record_change("credential.remove", credential_id)


@router.route("GET", "/credentials/<credential_id>/history", response=History)
def credential_history(credential_id: str) -> History:
    """Its states and why, newest first."""
    get_or_404(credential_id)
    return History(data=[StateEntry(**vars(one)) for one in open_store().get_history(credential_id)])


@router.route("POST", "/credentials/<credential_id>/test", body=TestParameters, response=OperationResult)
def test_credential(credential_id: str, body: TestParameters) -> OperationResult:
    """One real refresh and one tiny chat, by its worker between two requests, with timings."""
    return run_operation(credential_id, "test", body.model)


@router.route("POST", "/credentials/<credential_id>/refresh", body=Empty, response=OperationResult)
def refresh_credential(credential_id: str, body: Empty) -> OperationResult:
    """Exchange its refresh token now."""
    return run_operation(credential_id, "refresh")


@router.route("POST", "/credentials/<credential_id>/revoke", body=Empty, response=OperationResult)
def revoke_credential(credential_id: str, body: Empty) -> OperationResult:
    """Revoke its token at the upstream (RFC 7009), where the pool has a revocation endpoint, and disable it."""
    return run_operation(credential_id, "revoke")


def run_operation(credential_id: str, kind: str, model: str = "") -> OperationResult:
    """What a worker process has found. Raises ApiError 503 when none does it."""
    record = get_or_404(credential_id)
    record_change(f"credential.{kind}", credential_id)
    try:
        return OperationResult(
            **CredentialOperations(services().redis).request(CredentialOperation(record.pool, record.id, kind, model))
        )
    except NoWorkerProcess as error:
        raise ApiError(503, "no_worker", str(error), "server_error") from None
