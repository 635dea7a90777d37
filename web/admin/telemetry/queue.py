"""Admin API: the queues in the order of service, the running requests, and their cancellation."""

from dataclasses import asdict

from shared.errors import ApiError
from shared.queue_view import pool_queue
from shared.queue_view.cancellation import cancel_request
from web.admin.api import router
from web.admin.audit_log import record_change
from web.admin.credentials import list_all_pools, list_configured_pools
from web.admin.schemas.fields import Empty
from web.admin.telemetry.schemas import (
    BandWait,
    BatchPatience,
    Cancellation,
    DrainClock,
    FairShare,
    PoolQueue,
    PoolQueues,
    QueueKey,
    QueueQuery,
    Running,
    RunningList,
    Waiting,
    WaitingQuery,
)
from web.services import services


def open_view() -> pool_queue.QueueView:
    settings = services().settings
    return pool_queue.QueueView(services().redis, settings.batch_age, settings.batch_turns, settings.max_queue)


def select_pools(name: str) -> list[str]:
    """That pool, or all configured ones for ''. Raises ApiError 404."""
    if name and name not in list_all_pools():
        raise ApiError(404, "not_found", f"no pool {name!r}", param="pool")
    return [name] if name else list_configured_pools()


@router.route("GET", "/queue", query=WaitingQuery, response=PoolQueues, errors=(404,))
def list_waiting(query: WaitingQuery) -> PoolQueues:
    """List the waiting requests of each pool in the order in which they will be started, with estimated times.

    Both assume that nothing more arrives and that each request takes as long as the latest ones on average.
    """
    queues = open_view().read(select_pools(query.pool), query.limit, query.more_accounts)
    return PoolQueues(data=[to_schema(queue) for queue in queues])


def to_schema(queue: pool_queue.PoolQueue) -> PoolQueue:
    status = queue.status
    bands = {
        band: BandWait(waiting=waiting, held=status.held[band], oldest_seconds=queue.oldest[band])
        for band, waiting in status.queue_depth.items()
    }
    return PoolQueue(
        pool=status.name,
        bands=bands,
        workers=status.workers,
        utilisation=status.utilisation,
        upstream_down=status.upstream_down,
        paused_since=status.pause.since,
        paused_by=status.pause.by,
        mean_seconds=queue.mean_seconds,
        drained_in=queue.drained_in,
        clock=DrainClock(**asdict(queue.clock)),
        patience=BatchPatience(**asdict(queue.patience)) if queue.patience else None,
        waiting=[Waiting(**vars(request)) for request in queue.waiting],
        held=[Waiting(**vars(request)) for request in queue.held],
        keys=[QueueKey(**asdict(share)) for share in queue.keys],
        fairness=[FairShare(**asdict(share)) for share in queue.fairness],
    )


@router.route("GET", "/running", query=QueueQuery, response=RunningList, errors=(404,))
def list_running(query: QueueQuery) -> RunningList:
    """List the running requests, the oldest first."""
    running = open_view().list_running(select_pools(query.pool), query.limit)
    return RunningList(data=[Running(**vars(request)) for request in running])


@router.route("POST", "/requests/<request_id>/cancel", body=Empty, response=Cancellation)
def cancel(request_id: str, body: Empty) -> Cancellation:
    """Cancel a waiting or running request; its caller gets the error `request_cancelled` (410)."""
    web_services = services()
    outcome = cancel_request(web_services.redis, web_services.request_services.queue, request_id)
    if outcome == "gone":
        raise ApiError(404, "not_found", "there is no such request: it has ended, or never was")
    record_change("request.cancel", request_id, {"outcome": outcome})
    return Cancellation.model_validate({"outcome": outcome})
