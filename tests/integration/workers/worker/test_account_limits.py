"""Accounts stay within the limits that their pool's settings give them, across jobs, workers and hosts."""

import time
from collections.abc import Callable

import pytest
from redis import Redis

from shared import keys
from shared.protocol.credential_operations import CredentialOperation
from shared.protocol.messages import FrameKind
from tests.integration.harness import WorkerHarness, collect_frames
from tests.waiting import eventually
from workers.process.operation_runner import run_operation

StartHarness = Callable[..., WorkerHarness]


def fill_log(redis: Redis, credential_id: str, name: str, *ages: float) -> None:
    """Makes requests of so many seconds ago part of the account's log; the oldest comes first."""
    now = 1000 * time.time()
    entries = [f"{now - 1000 * age:.0f} {count}" for count, age in enumerate(ages, 1)]
    redis.rpush(f"{keys.pace(credential_id)}:{name}", "0 0", *entries)


def count_requests(redis: Redis, credential_id: str, name: str = "rpm") -> int:
    """What the account's log says was used."""
    entries = [int(entry.split()[1]) for entry in redis.lrange(f"{keys.pace(credential_id)}:{name}", 0, -1)]
    return entries[-1] - entries[0] if entries else 0


def end(harness: WorkerHarness, request_id: str) -> FrameKind:
    return collect_frames(harness.enqueue(request_id))[-1].kind


def test_account_at_its_limit_takes_no_job_and_says_until_when(start_harness: StartHarness):
    harness = start_harness(pool={"account_rpm": 2})
    mailboxes = [harness.enqueue(f"req_{i}") for i in range(3)]
    for mailbox in mailboxes[:2]:
        assert collect_frames(mailbox)[-1].kind is FrameKind.END
    eventually(lambda: harness.credential_state() == ("cooling", "limit_reached: account_rpm"))
    assert harness.queue.count_waiting("default") == 1
    assert harness.count_idle() == 0
    record = harness.credentials.get(harness.credential_id, ["default"])
    assert 50 < record.until - time.time() < 62
    assert count_requests(harness.redis, harness.credential_id) == 2
    assert harness.services.counters.value("account_rests", "default", "account_rpm") == 1


def test_account_comes_back_by_itself_when_a_request_fits_again(start_harness: StartHarness):
    harness = start_harness(pool={"account_rpm": 2})
    harness.wait_until_idle()
    fill_log(harness.redis, harness.credential_id, "rpm", 57, 56.9)
    assert end(harness, "req_1") is FrameKind.END
    assert harness.credential_state() == ("active", "")
    assert harness.credentials.get_history(harness.credential_id) == ()


def test_rest_too_short_to_be_shown_leaves_the_state_alone(start_harness: StartHarness):
    harness = start_harness(pool={"account_gap": 0.3})
    states: list[tuple[str, str]] = []
    mailboxes = [harness.enqueue(f"req_{i}") for i in range(4)]
    for mailbox in mailboxes:
        assert collect_frames(mailbox)[-1].kind is FrameKind.END
        states.append(harness.credential_state())
    assert set(states) == {("active", "")}
    assert harness.services.counters.value("account_rests", "default", "account_gap") >= 3


def test_job_goes_to_an_idle_account_while_another_rests(start_harness: StartHarness):
    harness = start_harness(pool={"account_rpm": 1}, credentials=2)
    assert {end(harness, "req_1"), end(harness, "req_2")} == {FrameKind.END}
    ids = [worker.lease.credential_id for worker in harness.workers]
    assert [count_requests(harness.redis, id_) for id_ in ids] == [1, 1]


def test_token_limit_counts_what_the_upstream_reports(start_harness: StartHarness):
    harness = start_harness(pool={"account_tpm": 1})
    harness.enqueue("req_1")
    harness.enqueue("req_2")
    eventually(lambda: harness.credential_state() == ("cooling", "limit_reached: account_tpm"))
    assert count_requests(harness.redis, harness.credential_id, "tpm") > 1
    assert harness.queue.count_waiting("default") == 1


def test_request_that_is_sent_twice_counts_twice(start_harness: StartHarness):
    harness = start_harness(pool={"account_rpm": 3})
    harness.wait_until_idle()
    harness.upstream.accounts(expire=True)
    assert end(harness, "req_1") is FrameKind.END
    assert count_requests(harness.redis, harness.credential_id) == 2


def test_request_is_not_sent_twice_beyond_the_limit(start_harness: StartHarness):
    harness = start_harness(pool={"account_rpm": 1}, credentials=2)
    eventually(lambda: harness.count_idle() == 2)
    harness.upstream.accounts(expire=True)
    assert end(harness, "req_1") is FrameKind.FAILURE
    assert [count_requests(harness.redis, worker.lease.credential_id) for worker in harness.workers] == [1, 1]


def test_test_by_an_operator_counts_and_is_refused_at_the_limit(start_harness: StartHarness):
    harness = start_harness(pool={"account_rpm": 1})
    harness.wait_until_idle()
    operation = CredentialOperation("default", harness.credential_id, "test", model="m")
    assert run_operation(harness.worker.runner, operation)["ok"]
    result = run_operation(harness.worker.runner, operation)
    assert not result["ok"]
    assert "account_rpm" in result["error"]
    assert harness.upstream.counters()["requests"] == 1


def test_what_was_never_sent_counts_nothing(start_harness: StartHarness):
    harness = start_harness(pool={"account_rpm": 5})
    harness.wait_until_idle()
    harness.worker.runner.cancel_before_start("req_1")
    harness.enqueue("req_1")
    eventually(lambda: harness.redis.get(keys.served_jobs("default")) == b"1")
    assert count_requests(harness.redis, harness.credential_id) == 0


def test_next_owner_of_a_resting_account_keeps_its_limit(start_harness: StartHarness):
    harness = start_harness(pool={"account_rpm": 1})
    harness.enqueue("req_1")
    harness.enqueue("req_2")
    eventually(lambda: harness.credential_state()[0] == "cooling")
    harness.close()
    harness.redis.delete(harness.lease.key)
    successor = start_harness(pool={"account_rpm": 1})
    eventually(successor.worker.runner.health.limit_rest.remaining)
    assert successor.credential_id == harness.credential_id
    assert successor.credential_state() == ("cooling", "limit_reached: account_rpm")
    assert count_requests(successor.redis, successor.credential_id) == 1


@pytest.mark.parametrize("limits", [{}, {"account_rpm": 5}], ids=["none", "higher"])
def test_other_limits_after_a_reload_end_the_rest(start_harness: StartHarness, limits: dict[str, int]):
    harness = start_harness(pool={"account_rpm": 1})
    harness.enqueue("req_1")
    harness.enqueue("req_2")
    eventually(lambda: harness.credential_state()[0] == "cooling")
    harness.close()
    harness.redis.delete(harness.lease.key)
    successor = start_harness(pool=limits)
    eventually(lambda: successor.credential_state() == ("active", ""))
    eventually(lambda: successor.queue.count_waiting("default") == 0)


def test_request_counts_from_its_beginning_so_that_a_kill_forgets_none(start_harness: StartHarness):
    harness = start_harness(pool={"account_rpm": 5}, first_byte_timeout=30.0)
    harness.upstream.pace(delay=20)
    harness.enqueue("req_1")
    eventually(lambda: harness.upstream.counters()["in_flight"])
    assert count_requests(harness.redis, harness.credential_id) == 1
    harness.worker.runner.cancel("client_gone")
    eventually(lambda: harness.redis.get(keys.served_jobs("default")) == b"1")
    assert count_requests(harness.redis, harness.credential_id) == 1
