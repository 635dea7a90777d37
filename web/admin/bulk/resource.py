"""Admin API: begins operations on many credentials, tells their progress, cancels them."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import gevent
from gevent.pool import Pool
from redis import Redis
from redis.exceptions import RedisError

from shared.credentials import private
from shared.credentials.draining import wait_until_idle
from shared.credentials.records import CredentialRecord
from shared.credentials.store import Credentials
from shared.errors import ApiError, FarmError, NotFound
from shared.observability.names_by_id import name_rows
from shared.protocol.credential_operations import CredentialOperation, CredentialOperations
from web.admin.api import router
from web.admin.audit_log import name_actor, record_change
from web.admin.bulk.progress import ProgressStore
from web.admin.bulk.schemas import BulkOperation, BulkResult, BulkResultPage, NewBulkOperation, ResultQuery
from web.admin.credentials import is_wanted, list_all_pools, open_store
from web.admin.pagination import paginate
from web.admin.schemas.credentials import CredentialQuery
from web.services import services

log = logging.getLogger("farm.web")
#: Credentials on which one operation works at the same time; each holds a connection to Redis for up to a minute.
PARALLEL = 16
#: Credentials between two looks at whether it was cancelled.
BATCH = 64

#: Longest time in seconds for which a drain waits for running requests.
MAX_DRAIN_SECONDS = 3600.0
#: Outcomes that have no other words.
GONE, STILL_BUSY = "there is no such credential any more", "its request still runs"
#: Ids that the audit log names; it has the count of all.
MAX_NAMED = 20

Work = Callable[[CredentialRecord], str]
#: Goes on with credentials, by id.
Then = Callable[[ProgressStore, str, Sequence[str]], None]


@router.route("POST", "/bulk", body=NewBulkOperation, response=BulkOperation, status=201, errors=(404,))
def begin_bulk(body: NewBulkOperation) -> BulkOperation:
    """Begin an operation on many credentials: those with these ids, or all that match. It goes on in the background."""
    return get_bulk(start(body.action, select_records(body), body.label))


def start(action: str, records: Sequence[CredentialRecord], label: str | None = None) -> str:
    """Begins an operation in the background; returns its id. `label` is for `relabel`."""
    web_services = services()
    store = ProgressStore(web_services.redis)
    operation = store.begin(action, len(records))
    details: dict[str, Any] = {"count": len(records), "ids": [record.id for record in records[:MAX_NAMED]]}
    record_change(f"credentials.{action}", "", details | ({} if label is None else {"label": label}))
    work = build_work(action, web_services.redis, web_services.operations, label)
    then = drain if action == "drain" else None
    gevent.spawn(run, store, operation, records, work, then)
    return operation


def select_records(body: NewBulkOperation) -> list[CredentialRecord]:
    """Raises ApiError 404 if there is no credential of one of the ids."""
    pools = list_all_pools()
    if body.matching is None:
        try:
            return list(open_store().get_all(dict.fromkeys(body.ids), pools))
        except NotFound as error:
            raise ApiError(404, "not_found", str(error), param="ids") from None
    query = CredentialQuery(**body.matching.model_dump())
    wanted = [name for name in pools if query.pool in ("", name)]
    return [record for record in open_store().list(wanted) if is_wanted(query, record)]


def build_work(action: str, redis: Redis, operations: CredentialOperations, label: str | None) -> Work:
    """What to do with each credential for the present actor; returns `ok`, or why not."""
    store, actor = Credentials(redis), name_actor()

    def operate(record: CredentialRecord) -> str:
        if record.state == "foreign":
            return record.reason
        result = operations.request(CredentialOperation(record.pool, record.id, action))
        return "ok" if result["ok"] else str(result.get("code") or result.get("error", ""))

    def enable(record: CredentialRecord) -> str:
        is_enabled = record.state != "foreign" and store.enable(record.pool, record.id)
        return "ok" if is_enabled else record.reason or GONE

    def disable(record: CredentialRecord) -> str:
        return "ok" if store.disable(record.pool, record.id) else GONE

    def relabel(record: CredentialRecord) -> str:
        return "ok" if store.set_label(record.pool, record.id, label or "") else GONE

    def remove(record: CredentialRecord) -> str:
        private.remove_credential(redis, record.pool, record.id, actor)
        return "ok"

    works = {"enable": enable, "disable": disable, "drain": disable, "relabel": relabel, "remove": remove}
    return works.get(action, operate)


def drain(store: ProgressStore, operation: str, disabled: Sequence[str]) -> None:
    """Waits until the last requests of disabled credentials have ended, or the operation is cancelled."""
    waiting = set(disabled)
    for idle in wait_until_idle(store.redis, disabled, MAX_DRAIN_SECONDS):
        waiting -= set(idle)
        if not store.record(operation, dict.fromkeys(idle, "ok")):
            return
    store.record(operation, dict.fromkeys(waiting, STILL_BUSY))
    store.end(operation, "done")


def run(
    store: ProgressStore, operation: str, records: Sequence[CredentialRecord], work: Work, then: Then | None = None
) -> None:
    """Works on all credentials, some at a time, until that is done or cancelled.

    `then` goes on with those with which the work went well, and records what becomes of them.
    """
    workers = Pool(PARALLEL)

    def work_safely(record: CredentialRecord) -> tuple[str, str]:
        try:
            return record.id, work(record)
        except (FarmError, RedisError) as error:
            return record.id, str(error)

    good: list[str] = []
    try:
        for first in range(0, len(records), BATCH):
            # All of the batch, also when it was cancelled meanwhile.
            results = workers.imap_unordered(work_safely, records[first : first + BATCH])
            if then is None:
                goes_on = [store.record(operation, {credential_id: outcome}) for credential_id, outcome in results]
            else:
                found = dict(results)
                good += [credential_id for credential_id, outcome in found.items() if outcome == "ok"]
                goes_on = [store.record(operation, {id_: each for id_, each in found.items() if each != "ok"})]
            if not all(goes_on):
                return
        then(store, operation, good) if then else store.end(operation, "done")
    except RedisError as error:
        log.warning("an operation on many credentials ends early: %s", error, extra={"action": "redis_lost"})


@router.route("GET", "/bulk/<operation_id>", response=BulkOperation)
def get_bulk(operation_id: str) -> BulkOperation:
    """Get the progress of an operation on many credentials, and what has become of them."""
    try:
        return BulkOperation(**asdict(ProgressStore(services().redis).get(operation_id)))
    except NotFound as error:
        raise ApiError(404, "not_found", str(error)) from None


@router.route("GET", "/bulk/<operation_id>/results", query=ResultQuery, response=BulkResultPage, errors=(404,))
def list_bulk_results(operation_id: str, query: ResultQuery) -> BulkResultPage:
    """List what has become of each credential of an operation, by outcome."""
    results = find_results(operation_id, query.outcome)
    data, next_cursor = paginate(sorted(results.items()), sorted(results), query.limit, query.cursor)
    rows = name_rows(services().redis, ({"credential": id_, "outcome": outcome} for id_, outcome in data))
    return BulkResultPage(data=[BulkResult(**row) for row in rows], next=next_cursor)


def find_results(operation_id: str, outcome: str) -> dict[str, str]:
    """Credential id -> what has become of it, of those with that outcome ('' for all). Raises ApiError 404."""
    try:
        return ProgressStore(services().redis).list_results(operation_id, outcome)
    except NotFound as error:
        raise ApiError(404, "not_found", str(error)) from None


@router.route("DELETE", "/bulk/<operation_id>", response=BulkOperation)
def cancel_bulk(operation_id: str) -> BulkOperation:
    """Cancel an operation on many credentials; what is begun is ended."""
    if ProgressStore(services().redis).end(operation_id, "cancelled"):
        record_change("bulk.cancel", operation_id)
    return get_bulk(operation_id)
