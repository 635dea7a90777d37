"""Sends a request to one credential, which runs it between two others; for operators who try an account.

It stands for the queue of a PendingRequest: the body is stored as that of a queued one, and withdrawn by deleting it.
"""

from collections.abc import Callable

from redis import Redis

from shared import keys
from shared.api_keys.limits import LimitUsage
from shared.errors import ApiError
from shared.protocol.credential_operations import RELAY, CredentialOperation, CredentialOperations, NoWorkerProcess
from shared.protocol.job_template import GRACE_SECONDS
from shared.protocol.large_body import LargeBody
from shared.protocol.messages import RelayRequest
from shared.protocol.relay_queue import CLIENT_GONE, Admission, RelayQueue


class DirectQueue(RelayQueue):
    """The way to one credential."""

    def __init__(self, redis: Redis, credential_id: str, finish: Callable[[str], None]) -> None:
        """`finish` tells the workers that nobody waits for the reply to a request (id) any more."""
        super().__init__(redis, max_queue=1)
        self._credential_id = credential_id
        self._finish = finish
        self._operations = CredentialOperations(redis)
        #: The worker process that has been asked, '' before.
        self.process = ""

    def enqueue(
        self,
        request: RelayRequest,
        body: bytes | LargeBody,
        demand: bytes = b"",
        weight: float = 1.0,
        upstream_model: str = "",
    ) -> Admission:
        """Raises ApiError 503 when no worker process runs."""
        data = b"".join(body.iter_pieces()) if isinstance(body, LargeBody) else body
        self._redis.set(keys.body(request.id), data, ex=int(request.deadline - request.enqueued_at) + GRACE_SECONDS)
        operation = CredentialOperation(request.pool, self._credential_id, RELAY, request=request.encode())
        try:
            self.process = self._operations.send(operation)
        except NoWorkerProcess as error:
            raise ApiError(503, "no_worker", str(error), "server_error") from None
        return Admission(0, 0, LimitUsage())

    def is_lost(self) -> bool:
        """Whether the worker process has died."""
        return not self._redis.exists(keys.process(self.process))

    def withdraw(self, pool: str, request_id: str) -> bool:
        return bool(self._redis.delete(keys.body(request_id)))

    def cancel(
        self, pool: str, request_id: str, key_id: str = "", *, only_waiting: bool = False, reason: str = CLIENT_GONE
    ) -> str:
        if self.withdraw(pool, request_id):
            return "withdrawn"
        self._finish(request_id)
        return "stopping"

    def count_waiting(self, pool: str) -> int:
        return 0
