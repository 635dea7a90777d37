"""The request log tells on which credentials a request was tried, and what became of each attempt."""

from collections.abc import Callable

from redis import Redis

from shared.observability.request_log import FailedAttempt, LogEntry, LogFilter, RequestLog, RequestsAhead
from tests.integration.harness import WorkerHarness, collect_frames
from tests.waiting import eventually


def read_log(redis: Redis) -> list[LogEntry]:
    return [stored.entry for stored in RequestLog(redis).read_newest_first(LogFilter())]


def test_failed_attempts_are_kept(redis: Redis, start_harness: Callable[..., WorkerHarness]):
    harness = start_harness(credentials=2)
    ids = {worker.lease.credential_id for worker in harness.workers}
    harness.upstream.faults(server_error=1)
    collect_frames(harness.enqueue())
    (entry,) = eventually(lambda: read_log(redis))
    attempts = FailedAttempt.parse(entry.tried)
    assert (entry.status, entry.attempts, len(attempts)) == (500, 2, 2)
    assert {(attempt.outcome, attempt.status) for attempt in attempts} == {("upstream_error", 500)}
    assert {attempt.credential for attempt in attempts} == ids
    first, last = sorted(attempt.started_ms or 0 for attempt in attempts)
    assert 0 <= first <= last == entry.queue_ms


def test_request_that_was_served_at_once_costs_nothing(redis: Redis, harness: WorkerHarness):
    collect_frames(harness.enqueue())
    (entry,) = eventually(lambda: read_log(redis))
    assert (entry.tried, entry.ahead) == ("", "")


def test_who_was_ahead_at_admission_is_kept(redis: Redis, harness: WorkerHarness):
    connection_id = harness.wait_until_idle()
    harness.suspended = True
    harness.redis.client_unblock(connection_id)
    eventually(lambda: harness.redis.hget(harness.worker.key, "state") == b"suspended")
    mailboxes = [harness.enqueue(f"req_{number}", key="a") for number in range(3)]
    harness.suspended = False
    for mailbox in mailboxes:
        collect_frames(mailbox, within=60)
    eventually(lambda: len(read_log(redis)) == 3)
    ahead = {entry.request: RequestsAhead.parse(entry.ahead) for entry in read_log(redis)}
    assert ahead == {"req_0": (), "req_1": (RequestsAhead("a", 1),), "req_2": (RequestsAhead("a", 2),)}
