"""Ends a batch: what was not run gets a result, and the results become files."""

from collections.abc import Mapping

from shared.batches.batch import CANCELLED, CANCELLING, EXPIRED, Batch
from web.batches.lost_input import describe_loss
from web.batches.result_files import ResultFiles
from web.batches.services import BatchServices
from web.batches.skipped_lines import record_skipped
from web.batches.transitions import Transitions


def end_batch(
    services: BatchServices, transitions: Transitions, results: ResultFiles, batch: Batch, begun: Mapping[int, str]
) -> None:
    """Called when its lines are disowned, and none of them runs here. Can be repeated, by another front too.

    1. Lines without a result get one. 2. All results leave Redis. 3. The files are made. 4. The batch ends.
    `begun`: numbers of lines that were disowned -> custom_ids, '' where unknown. Raises FileStoreDown, RedisError.
    """
    outcome, errors = CANCELLED if batch.status == CANCELLING else batch.outcome, batch.errors
    if outcome in (EXPIRED, CANCELLED) and batch.total and not record_skipped(services, results, batch, outcome, begun):
        errors = [describe_loss(batch)]
    while count := results.flush(batch):
        if count < 0:
            return
    if batch.pool:
        # The caller has the usual time from now on to get the results.
        services.private_credentials.touch(batch.pool)
    batch = services.store.get(batch.id)
    results.create(batch)
    transitions.end(batch, outcome, errors)
