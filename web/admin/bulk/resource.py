"""Admin API: begins operations on many credentials, tells their progress, cancels them."""

import logging
from collections.abc import Callable
from dataclasses import asdict

import gevent
from gevent.pool import Pool
from redis import Redis
from redis.exceptions import RedisError

from shared.credentials import private
from shared.credentials.records import CredentialRecord
from shared.credentials.store import Credentials
from shared.errors import ApiError, FarmError, NotFound
from shared.protocol.credential_operations import CredentialOperation, CredentialOperations
from web.admin.api import router
from web.admin.audit_log import record_change
from web.admin.bulk.progress import ProgressStore
from web.admin.bulk.schemas import BulkOperation, NewBulkOperation
from web.admin.credentials import is_wanted, list_all_pools, open_store
from web.admin.schemas import CredentialQuery
from web.services import services

log = logging.getLogger("farm.web")
#: Credentials on which one operation works at the same time; each holds a connection to Redis for up to a minute.
PARALLEL = 16
#: Credentials between two looks at whether it was cancelled.
BATCH = 64

Work = Callable[[CredentialRecord], str]


@router.route("POST", "/bulk", body=NewBulkOperation, response=BulkOperation, status=201, errors=(404,))
def begin_bulk(body: NewBulkOperation) -> BulkOperation:
    """Begin an operation on many credentials: those with these ids, or all that match. It goes on in the background."""
    records = select_records(body)
    web_services = services()
    store = ProgressStore(web_services.redis)
    operation = store.begin(body.action, len(records))
    record_change(f"credentials.{body.action}", body.matching.pool if body.matching else "", {"count": len(records)})
    work = build_work(body.action, web_services.redis, web_services.operations)
    gevent.spawn(run, store, operation, records, work)
    return get_bulk(operation)


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


def build_work(action: str, redis: Redis, operations: CredentialOperations) -> Work:
    """What to do with each credential; returns `ok`, or why not."""
    store = Credentials(redis)

    def operate(record: CredentialRecord) -> str:
        if record.state == "foreign":
            return record.reason
        result = operations.request(CredentialOperation(record.pool, record.id, action))
        return "ok" if result["ok"] else str(result.get("error", ""))

    def enable(record: CredentialRecord) -> str:
        is_enabled = record.state != "foreign" and store.enable(record.pool, record.id)
        return "ok" if is_enabled else record.reason or "there is no such credential any more"

    def disable(record: CredentialRecord) -> str:
        return "ok" if store.disable(record.pool, record.id) else f"it is {record.state}"

    def remove(record: CredentialRecord) -> str:
        private.remove_credential(redis, record.pool, record.id)
        return "ok"

    return {"enable": enable, "disable": disable, "remove": remove}.get(action, operate)


def run(store: ProgressStore, operation: str, records: list[CredentialRecord], work: Work) -> None:
    """Works on all credentials, some at a time, until that is done or cancelled."""
    workers = Pool(PARALLEL)

    def work_safely(record: CredentialRecord) -> str:
        try:
            return work(record)
        except (FarmError, RedisError) as error:
            return str(error)

    try:
        for start in range(0, len(records), BATCH):
            outcomes = workers.imap_unordered(work_safely, records[start : start + BATCH])
            # All of the batch, also when it was cancelled meanwhile.
            goes_on = [store.record(operation, [outcome]) for outcome in outcomes]
            if not all(goes_on):
                return
        store.end(operation, "done")
    except RedisError as error:
        log.warning("an operation on many credentials ends early: %s", error, extra={"action": "redis_lost"})


@router.route("GET", "/bulk/<operation_id>", response=BulkOperation)
def get_bulk(operation_id: str) -> BulkOperation:
    """Get the progress of an operation on many credentials, and what has become of them."""
    try:
        return BulkOperation(**asdict(ProgressStore(services().redis).get(operation_id)))
    except NotFound as error:
        raise ApiError(404, "not_found", str(error)) from None


@router.route("DELETE", "/bulk/<operation_id>", response=BulkOperation)
def cancel_bulk(operation_id: str) -> BulkOperation:
    """Cancel an operation on many credentials; what is begun is ended."""
    if ProgressStore(services().redis).end(operation_id, "cancelled"):
        record_change("bulk.cancel", operation_id)
    return get_bulk(operation_id)
