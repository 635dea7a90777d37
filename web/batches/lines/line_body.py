"""The body of one line, which is in memory only until its request is enqueued."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from web.request.body import RequestBody
from web.request.body_memory import UNRESERVED_BYTES, BodyMemory, Reservation
from web.request.pending import PendingRequest


class LineBody:
    """Can be read more than once."""

    def __init__(self, memory: BodyMemory, owner: str, length: int, read: Callable[[], RequestBody]) -> None:
        """`read` may raise ApiError."""
        self._memory = memory
        self._owner = owner
        self._length = length
        self._read = read

    @contextmanager
    def hold(self) -> Iterator[RequestBody]:
        """Reads it once there is memory for it, which is given back when the `with` block ends. Raises ApiError."""
        with Reservation(self._memory, self._owner) as reservation:
            if self._length > UNRESERVED_BYTES:
                reservation.reserve(self._length)
            yield self._read()


class LineSubmission:
    """Enqueues the request of a line at once, or long after its body was dropped: another front may have run it."""

    def __init__(self, pending_request: PendingRequest, source: LineBody, body: RequestBody) -> None:
        self._pending_request = pending_request
        self._source = source
        self._body: RequestBody | None = body
        self.is_submitted = False

    def submit(self) -> None:
        """Raises ApiError, RedisError."""
        self.is_submitted = True
        if self._body:
            self._submit(self._body)
            return
        with self._source.hold() as body:
            self._submit(body)

    def _submit(self, body: RequestBody) -> None:
        self._pending_request.submit(body.with_model(self._pending_request.upstream_model).content)

    def drop_body(self) -> None:
        self._body = None
