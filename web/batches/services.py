"""What the batches of a front share."""

from dataclasses import dataclass

from redis import Redis

from shared.api_keys.api_key import ApiKey
from shared.api_keys.store import ApiKeys
from shared.batches.batch import Batch
from shared.batches.batch_leases import BatchLeases
from shared.batches.batch_lines import BatchLines
from shared.batches.batch_store import Batches
from shared.credentials.private import PrivateCredentials
from shared.errors import NotFound
from shared.files.file_record import FileRecord
from shared.files.file_store import FileNotFound, Files
from shared.redis_connection.auto_pipeline import AutoPipeline
from shared.settings.schema import PoolSettings, Settings
from web.access.private_callers import PrivateCaller
from web.batches.headroom import Headroom
from web.batches.lines.line_request import MAX_PAUSE_SECONDS, LineRequests
from web.request.capacity.pool_selection import can_serve

#: Seconds within which a run of a line has ended, beyond its total timeout and its pause.
RUN_MARGIN_SECONDS = 90.0


@dataclass(frozen=True)
class BatchServices:
    """Those methods that read Redis raise RedisError."""

    redis: Redis
    store: Batches
    leases: BatchLeases
    lines: BatchLines
    files: Files
    api_keys: ApiKeys
    private_credentials: PrivateCredentials
    requests: LineRequests
    headroom: Headroom
    #: Bytes of a line.
    max_line: int
    #: Seconds after which the run of a line has ended, whatever happens.
    max_run: float

    @property
    def front_id(self) -> str:
        return self.requests.services.hub.front_id

    def find_key(self, batch: Batch) -> ApiKey | None:
        """The API key as it is now, None if it was revoked; likewise for a caller's own refresh token."""
        if batch.pool:
            return PrivateCaller(id=batch.key, hint="", created_at=0, pool=batch.pool) if self._may_run(batch) else None
        try:
            key = self.api_keys.get(batch.key)
        except NotFound:
            return None
        return None if key.revoked_at else key

    def _may_run(self, batch: Batch) -> bool:
        """Whether the farm still takes refresh tokens of callers, and has that of this batch's."""
        is_taken = self.requests.pool_selector.has_pool(batch.pool)
        return is_taken and self.private_credentials.get_state(batch.pool) not in ("", "dead")

    def cancel_ownerless(self, batch: Batch) -> None:
        """Cancels a batch that `find_key` finds no key for."""
        self.store.cancel(batch.id, reason="credential_gone" if batch.pool else "key_revoked")

    def find_input(self, batch: Batch) -> FileRecord:
        """Raises FileNotFound."""
        record = self.files.find(batch.input_file_id)
        if record is None or record.key != batch.key:
            raise FileNotFound(batch.input_file_id)
        return record

    def list_pools(self, batch: Batch, key: ApiKey) -> list[PoolSettings]:
        """The pools that serve the model of the first line, which most often is that of all."""
        return [pool for pool in self.requests.pool_selector.list_open_to(key) if can_serve(pool, batch.model)]


def build_batch_services(settings: Settings, redis: Redis, files: Files, requests: LineRequests) -> BatchServices:
    pipeline = AutoPipeline(redis)
    return BatchServices(
        redis=redis,
        store=Batches(redis, pipeline),
        leases=BatchLeases(redis),
        lines=BatchLines(redis, pipeline),
        files=files,
        api_keys=ApiKeys(redis),
        private_credentials=PrivateCredentials(redis),
        requests=requests,
        headroom=Headroom(redis, requests.services.hub.front_id, requests.services.interactive_load),
        max_line=settings.max_body,
        max_run=settings.max_total_timeout + MAX_PAUSE_SECONDS + RUN_MARGIN_SECONDS,
    )
