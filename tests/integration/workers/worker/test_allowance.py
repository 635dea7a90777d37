"""An account that has nothing left at the upstream rests until the limit is reset, before it is refused."""

from collections.abc import Callable

import pytest

from shared import keys
from shared.protocol.messages import FrameKind
from tests.integration.harness import CHAT_BODY, WorkerHarness, collect_frames, streaming_body
from tests.waiting import eventually

StartHarness = Callable[..., WorkerHarness]
RESTING = ("cooling", "allowance_used")


@pytest.mark.parametrize("body", [CHAT_BODY, streaming_body()], ids=["whole", "stream"])
def test_account_with_nothing_left_takes_no_job_until_the_reset(harness: WorkerHarness, body: bytes):
    harness.upstream.allowances(requests=2, window=100)
    mailboxes = [harness.enqueue(f"req_{i}", body=body) for i in range(3)]
    for mailbox in mailboxes[:2]:
        assert collect_frames(mailbox)[-1].kind is FrameKind.END
    eventually(lambda: harness.credential_state() == RESTING)
    eventually(lambda: harness.queue.count_waiting("default") == 1)
    assert 50 < harness.worker.runner.health.cooldown.remaining() <= 100
    assert harness.upstream.counters().get("over_limit", 0) == 0


def test_resting_account_goes_on_after_the_reset_and_is_never_refused(harness: WorkerHarness):
    harness.upstream.allowances(requests=2, window=0.5)
    for mailbox in [harness.enqueue(f"req_{i}") for i in range(6)]:
        assert collect_frames(mailbox)[-1].kind is FrameKind.END
    assert harness.upstream.counters().get("over_limit", 0) == 0


@pytest.mark.parametrize("sliding", [False, True], ids=["fixed", "sliding"])
def test_reset_counts_from_the_head_of_a_stream(harness: WorkerHarness, sliding: bool):
    harness.upstream.allowances(requests=1, window=100, sliding=sliding)
    harness.upstream.pace(chunks=4, chunk_delay=0.5)
    assert collect_frames(harness.enqueue("req_1", body=streaming_body()))[-1].kind is FrameKind.END
    eventually(lambda: harness.credential_state() == RESTING)
    assert 50 < harness.worker.runner.health.cooldown.remaining() < 98.6


def test_sliding_window_is_used_up_and_never_refuses(harness: WorkerHarness):
    harness.upstream.allowances(requests=3, window=0.5, sliding=True)
    for mailbox in [harness.enqueue(f"req_{i}") for i in range(12)]:
        assert collect_frames(mailbox)[-1].kind is FrameKind.END
    assert harness.upstream.counters().get("over_limit", 0) == 0


def test_pool_that_has_nothing_left_keeps_its_jobs_waiting(start_harness: StartHarness):
    harness = start_harness(credentials=2)
    harness.upstream.allowances(requests=1, window=100)
    for i in range(3):
        harness.enqueue(f"req_{i}")
    eventually(lambda: set(harness.redis.hvals(keys.credentials("default"))) == {b"cooling"})
    eventually(lambda: harness.queue.count_waiting("default") == 1)
    assert harness.upstream.counters().get("over_limit", 0) == 0


def test_refused_account_rests_until_the_reset_that_the_refusal_names(harness: WorkerHarness):
    harness.upstream.allowances(requests=1, window=100, shown=False)
    assert collect_frames(harness.enqueue("req_1"))[-1].kind is FrameKind.END
    harness.upstream.allowances(requests=-1, window=100)
    harness.enqueue("req_2")
    eventually(lambda: harness.credential_state() == ("cooling", "rate_limited"))
    assert 50 < harness.worker.runner.health.cooldown.remaining() <= 100
