"""An operator's operation runs in the credential's worker, between two requests (I1)."""

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from redis import Redis

from shared import keys
from shared.protocol.credential_operations import CredentialOperation, CredentialOperations, NoWorkerProcess
from shared.redis_connection.client import connect
from tests.integration.harness import WorkerHarness, collect_frames
from tests.upstream import Upstream
from tests.waiting import eventually
from workers.process.operation_inbox import OperationInbox


class OneWorkerSet:
    """A worker set that holds only the harness's worker."""

    def __init__(self, harness: WorkerHarness) -> None:
        self._harness = harness

    def find_or_start_worker(self, pool: str, credential_id: str) -> Any:
        return self._harness.worker if credential_id == self._harness.credential_id else None

    def wake_idle(self) -> None:
        worker = self._harness.worker
        if worker.blocking_pop.client_id and not worker.runner.busy_since:
            self._harness.redis.client_unblock(worker.blocking_pop.client_id)


class OperatorHarness:
    """A worker harness with an operation inbox, and an operator who sends it operations."""

    def __init__(self, harness: WorkerHarness, redis_url: str) -> None:
        self.harness = harness
        self.redis = connect(redis_url)
        inbox = OperationInbox(self.redis, "here", OneWorkerSet(harness), None, dict)  # type: ignore[arg-type]
        self._inbox = gevent.spawn(inbox.run)

    def close(self) -> None:
        self._inbox.kill()
        self.redis.connection_pool.disconnect()

    def request(self, kind: str, model: str = "", credential_id: str = "") -> dict[str, Any]:
        operation = CredentialOperation("default", credential_id or self.harness.credential_id, kind, model)
        return CredentialOperations(self.harness.redis).request(operation, timeout=10)


@pytest.fixture
def operator(harness: WorkerHarness, redis_url: str) -> Iterator[OperatorHarness]:
    operator = OperatorHarness(harness, redis_url)
    harness.wait_until_idle()
    yield operator
    operator.close()


def test_operation_test_refreshes_and_sends_a_chat(operator: OperatorHarness):
    before = operator.harness.upstream.counters()
    result = operator.request("test")
    assert (result["ok"], result["error"], result["status"], result["model"]) == (True, "", 200, "sim-translate")
    after = operator.harness.upstream.counters()
    assert after["refreshes"] == before["refreshes"] + 1
    assert after["served"] == before["served"] + 1
    assert after["collisions"] == 0
    assert all(result[name] >= 0 for name in ("refresh_ms", "first_byte_ms", "chat_ms"))


def test_operation_waits_for_the_running_request(operator: OperatorHarness):
    operator.harness.upstream.pace(delay=0.5)
    mailbox = operator.harness.enqueue()
    eventually(lambda: operator.harness.upstream.counters()["in_flight"] == 1)
    assert operator.request("test", "some-model")["model"] == "some-model"
    assert collect_frames(mailbox)
    assert operator.harness.upstream.counters()["collisions"] == 0


def test_worker_takes_jobs_again_after_an_operation(operator: OperatorHarness):
    for _ in range(3):
        assert operator.request("refresh")["ok"]
        assert collect_frames(operator.harness.enqueue())
        eventually(lambda: operator.harness.redis.keys("*req_1*") == [])


def test_refresh_operation_refreshes_a_fresh_token(operator: OperatorHarness):
    before = operator.harness.upstream.counters()["refreshes"]
    assert [operator.request("refresh")["ok"] for _ in range(2)] == [True, True]
    assert operator.harness.upstream.counters()["refreshes"] == before + 2
    assert operator.harness.upstream.counters().get("reused_refresh_tokens", 0) == 0


def test_refused_token_is_reported_and_presented_again_later(operator: OperatorHarness):
    operator.harness.upstream.accounts(kill=0)
    result = operator.request("test")
    assert not result["ok"]
    assert "invalid_grant" in result["error"]
    assert "presented again in" in result["error"]
    eventually(lambda: operator.harness.credential_state() == ("cooling", "invalid_grant_retry"))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("server_error", "500"),
        ("rate_limit", "429"),
        ("cut", "broke off"),
        ("error_object", "error object"),
        ("page", "page"),
    ],
)
def test_operation_reports_why_its_chat_failed(operator: OperatorHarness, fault: str, words: str):
    operator.harness.upstream.faults(**{fault: 1})
    result = operator.request("test")
    assert not result["ok"]
    assert words in result["error"]
    assert "sim-at-" not in repr(result)
    operator.harness.upstream.faults()
    assert operator.request("test")["ok"]


def test_revoke_without_a_revocation_endpoint_changes_nothing(operator: OperatorHarness):
    result = operator.request("revoke")
    assert not result["ok"]
    assert "FARM_REVOCATION_URL" in result["error"]
    assert operator.harness.credential_state()[0] == "active"


@pytest.mark.parametrize("url", ["{base}/nothing-here", "http://127.0.0.1:9/revoke"])
def test_revoke_that_fails_puts_the_former_state_back(
    start_harness: Callable[..., WorkerHarness], redis_url: str, upstream: Upstream, url: str
):
    operator = OperatorHarness(start_harness(pool={"revocation_url": url.format(base=upstream.base)}), redis_url)
    try:
        assert not operator.request("revoke")["ok"]
        assert operator.harness.credential_state() == ("active", "")
        history = [change.reason for change in operator.harness.credentials.get_history(operator.harness.credential_id)]
        assert history == ["", "being revoked"]
    finally:
        operator.close()


def test_credential_of_another_process_is_left_alone(operator: OperatorHarness):
    operator.harness.redis.zadd(keys.PROCESSES, {"here": 1})
    assert "another process" in operator.request("test", credential_id="c99")["error"]


def test_request_without_a_worker_process_raises_at_once(redis: Redis):
    with pytest.raises(NoWorkerProcess):
        CredentialOperations(redis).request(CredentialOperation("default", "c1", "test"))


@pytest.fixture
def revocable(
    start_harness: Callable[..., WorkerHarness], redis_url: str, upstream: Upstream
) -> Iterator[OperatorHarness]:
    operator = OperatorHarness(start_harness(pool={"revocation_url": f"{upstream.base}/oauth/revoke"}), redis_url)
    yield operator
    operator.close()


def test_revoke_revokes_the_token_and_disables_the_credential(revocable: OperatorHarness):
    assert revocable.request("revoke") == {"ok": True, "status": 200, "refresh_ms": pytest.approx(50, abs=5000)}
    assert revocable.harness.credential_state() == ("disabled", "revoked")
    assert revocable.harness.upstream.counters()["dead_accounts"] == 1
