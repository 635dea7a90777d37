"""The body of a line is in memory only while it is enqueued, and is read again if that comes late."""

from typing import Any, cast

import pytest

from web.batches.lines.line_body import LineBody, LineSubmission
from web.request.body import RequestBody, build_body
from web.request.body_memory import UNRESERVED_BYTES, BodyMemory
from web.request.pending import PendingRequest

LONG = UNRESERVED_BYTES + 1


class Queue:
    """Stands for the request that is enqueued."""

    upstream_model = "there"

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        #: Bodies, and the bytes that were reserved when they came.
        self.submitted: list[tuple[Any, int]] = []

    def submit(self, body: Any) -> None:
        self.submitted.append((body, self._memory.reserved))


@pytest.fixture
def memory() -> BodyMemory:
    return BodyMemory(2 * LONG)


def read_body() -> RequestBody:
    return build_body(b'{"model": "here"}', "application/json", {"model": "here"})


@pytest.mark.parametrize("is_late", [False, True], ids=["at once", "late"])
def test_a_body_is_enqueued_while_its_memory_is_reserved(memory: BodyMemory, is_late: bool):
    reads = []
    source = LineBody(memory, "k", LONG, lambda: reads.append(1) or read_body())
    queue = Queue(memory)
    with source.hold() as body:
        submission = LineSubmission(cast("PendingRequest", queue), source, body)
        if not is_late:
            submission.submit()
    submission.drop_body()
    if is_late:
        assert not submission.is_submitted and memory.reserved == 0
        submission.submit()
    assert queue.submitted == [(b'{"model": "there"}', LONG)] and submission.is_submitted
    assert (len(reads), memory.reserved) == (1 + is_late, 0)


def test_a_short_line_needs_no_reservation(memory: BodyMemory):
    with LineBody(memory, "k", UNRESERVED_BYTES, read_body).hold():
        assert memory.reserved == 0
