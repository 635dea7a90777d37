"""Credentials by the admin API: tokens go in, states come out, and no token ever does."""

from flask import Response

from shared.credentials.private import all_pools, remove
from shared.credentials.records import CredentialRecord
from shared.credentials.store import Credentials
from shared.errors import ApiError, FarmError, NotFound
from shared.protocol.credential_operations import Errand, Errands, NobodyThere
from web.admin.api import contract
from web.admin.audit_log import note
from web.admin.etags import check_version, tagged
from web.admin.openapi import answered
from web.admin.pagination import page
from web.admin.schemas import (
    Credential,
    CredentialChange,
    CredentialPage,
    CredentialQuery,
    Empty,
    ErrandAnswer,
    ErrandQuestion,
    History,
    ImportAnswer,
    LineReport,
    NewCredentials,
    StateEntry,
)
from web.services import parts


def store() -> Credentials:
    """The credentials of the farm."""
    return Credentials(parts().redis)


def pool_names() -> list[str]:
    """Every configured pool's name."""
    return [pool.name for pool in parts().pools]


def all_names() -> list[str]:
    """Those, and the pools of private credentials."""
    return all_pools(parts().redis, pool_names())


def found(credential_id: str) -> CredentialRecord:
    """A credential. Raises ApiError 404."""
    try:
        return store().find(credential_id, all_names())
    except NotFound as error:
        raise ApiError(404, "not_found", str(error)) from None


def shown(record: CredentialRecord) -> Credential:
    """A credential as the API gives it."""
    return Credential(**record.as_dict())


def version(record: CredentialRecord) -> object:
    """What a person may change of it."""
    return record.label, record.state == "disabled"


@contract.route("GET", "/credentials", query=CredentialQuery, answer=CredentialPage, errors=(404,))
def list_credentials(query: CredentialQuery) -> CredentialPage:
    """Credentials by pool and age."""
    pools = [name for name in all_names() if query.pool in ("", name)]
    wanted = [one for one in store().list(pools) if query.state in ("", one.state)]
    data, following = page(wanted, [one.id for one in wanted], query.limit, query.cursor)
    return CredentialPage(data=[shown(one) for one in data], next=following)


@contract.route("POST", "/credentials", body=NewCredentials, answer=ImportAnswer, errors=(404,))
def add_credentials(body: NewCredentials) -> ImportAnswer:
    """Add refresh tokens; tells what became of each line."""
    if body.pool not in pool_names():
        raise ApiError(404, "not_found", f"no pool {body.pool!r}")
    try:
        report = store().import_lines(body.pool, body.tokens, body.label)
    except FarmError as error:
        raise ApiError(503, "not_ready", str(error), "server_error") from None
    note("credentials.add", body.pool, report.as_counts())
    lines = [LineReport.model_validate(vars(line)) for line in report.lines]
    return ImportAnswer(**report.as_counts(), lines=lines)


@contract.route("GET", "/credentials/<credential_id>", answer=Credential)
def get_credential(credential_id: str) -> Response:
    """One credential; its ETag can be sent back as If-Match."""
    record = found(credential_id)
    return tagged(answered(shown(record), 200), version(record))


@contract.route("PATCH", "/credentials/<credential_id>", body=CredentialChange, answer=Credential, errors=(412,))
def update_credential(credential_id: str, body: CredentialChange) -> Response:
    """Change its label, take it out of service or put it back."""
    record = found(credential_id)
    check_version(version(record))
    if body.label is not None:
        store().set_label(record.pool, record.id, body.label)
    if body.state == "active":
        store().enable(record.pool, record.id)
    elif body.state == "disabled":
        store().move(record.pool, record.id, "disabled", "by a person")
    note("credential.update", credential_id, body.model_dump(exclude_unset=True))
    changed = found(credential_id)
    return tagged(answered(shown(changed), 200), version(changed))


@contract.route("DELETE", "/credentials/<credential_id>", status=204)
def remove_credential(credential_id: str) -> None:
    """Forget a credential and its tokens."""
    record = found(credential_id)
    remove(parts().redis, record.pool, record.id)
    note("credential.remove", credential_id)


@contract.route("GET", "/credentials/<credential_id>/history", answer=History)
def credential_history(credential_id: str) -> History:
    """Its states and why, newest first."""
    found(credential_id)
    return History(data=[StateEntry(**vars(one)) for one in store().history(credential_id)])


@contract.route("POST", "/credentials/<credential_id>/test", body=ErrandQuestion, answer=ErrandAnswer)
def test_credential(credential_id: str, body: ErrandQuestion) -> ErrandAnswer:
    """One real refresh and one tiny chat, by its worker between two requests, with timings."""
    return errand(credential_id, "test", body.model)


@contract.route("POST", "/credentials/<credential_id>/refresh", body=Empty, answer=ErrandAnswer)
def refresh_credential(credential_id: str, body: Empty) -> ErrandAnswer:
    """Exchange its refresh token now."""
    return errand(credential_id, "refresh")


@contract.route("POST", "/credentials/<credential_id>/revoke", body=Empty, answer=ErrandAnswer)
def revoke_credential(credential_id: str, body: Empty) -> ErrandAnswer:
    """Revoke its token at the upstream (RFC 7009), where the pool has a revocation endpoint, and disable it."""
    return errand(credential_id, "revoke")


def errand(credential_id: str, kind: str, model: str = "") -> ErrandAnswer:
    """What a worker process has found. Raises ApiError 503 when none does it."""
    record = found(credential_id)
    note(f"credential.{kind}", credential_id)
    try:
        return ErrandAnswer(**Errands(parts().redis).ask(Errand(record.pool, record.id, kind, model)))
    except NobodyThere as error:
        raise ApiError(503, "no_worker", str(error), "server_error") from None
