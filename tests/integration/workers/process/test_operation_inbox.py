"""Errands of an operator: done by the credential's worker between two requests, never beside one (I1)."""

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from redis import Redis

from shared import keys
from shared.credentials.unsealing import Unsealer
from shared.protocol.credential_operations import CredentialOperation, CredentialOperations, NoWorkerProcess
from shared.redis_connection.client import connect
from tests.integration.harness import Workshop, answer
from tests.upstream import Upstream
from tests.waiting import eventually
from workers.process.operation_inbox import OperationInbox


class OneWorker:
    """A crew of the workshop's worker."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop

    def find_or_start_worker(self, pool: str, credential_id: str) -> Any:
        return self._workshop.worker if credential_id == self._workshop.id else None

    def wake_idle(self) -> None:
        line = self._workshop.worker.blocking_pop
        if line.client_id and not self._workshop.worker.runner.busy_since:
            self._workshop.redis.client_unblock(line.client_id)


class Office:
    """A workshop whose errands are done, and who asks for them."""

    def __init__(self, workshop: Workshop, redis_url: str) -> None:
        self.workshop = workshop
        self.redis = connect(redis_url)
        self.desk = gevent.spawn(OperationInbox(self.redis, "here", OneWorker(workshop)).run)  # type: ignore[arg-type]

    def close(self) -> None:
        self.desk.kill()
        self.redis.connection_pool.disconnect()

    def ask(self, kind: str, model: str = "", credential_id: str = "") -> dict[str, Any]:
        errand = CredentialOperation("default", credential_id or self.workshop.id, kind, model)
        return CredentialOperations(self.workshop.redis).request(errand, timeout=10)


@pytest.fixture
def office(workshop: Workshop, redis_url: str) -> Iterator[Office]:
    made = Office(workshop, redis_url)
    eventually(lambda: workshop.worker.blocking_pop.client_id)
    yield made
    made.close()


def test_a_test_is_a_real_refresh_and_a_chat(office: Office):
    before = office.workshop.upstream.counters()
    found = office.ask("test")
    assert (found["ok"], found["error"], found["status"], found["model"]) == (True, "", 200, "sim-translate")
    after = office.workshop.upstream.counters()
    assert after["refreshes"] == before["refreshes"] + 1
    assert after["served"] == before["served"] + 1
    assert after["collisions"] == 0
    assert all(found[name] >= 0 for name in ("refresh_ms", "first_byte_ms", "chat_ms"))


def test_a_test_waits_for_the_request_that_runs(office: Office):
    office.workshop.upstream.pace(delay=0.5)
    mailbox = office.workshop.ask()
    eventually(lambda: office.workshop.upstream.counters()["in_flight"] == 1)
    assert office.ask("test", "some-model")["model"] == "some-model"
    assert answer(mailbox)
    assert office.workshop.upstream.counters()["collisions"] == 0


def test_work_goes_on_after_an_errand(office: Office):
    for _ in range(3):
        assert office.ask("refresh")["ok"]
        assert answer(office.workshop.ask())
        eventually(lambda: office.workshop.redis.keys("*req_1*") == [])


def test_a_refresh_asks_the_endpoint_whatever_token_there_is(office: Office):
    before = office.workshop.upstream.counters()["refreshes"]
    assert [office.ask("refresh")["ok"] for _ in range(2)] == [True, True]
    assert office.workshop.upstream.counters()["refreshes"] == before + 2
    assert office.workshop.upstream.counters().get("reused_refresh_tokens", 0) == 0


def test_a_token_that_was_refused_is_told_and_its_credential_is_dead(office: Office):
    office.workshop.upstream.accounts(kill=0)
    found = office.ask("test")
    assert not found["ok"]
    assert "invalid_grant" in found["error"]
    eventually(lambda: office.workshop.state() == ("dead", "invalid_grant"))


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
def test_a_chat_that_fails_is_told_why(office: Office, fault: str, words: str):
    office.workshop.upstream.faults(**{fault: 1})
    found = office.ask("test")
    assert not found["ok"]
    assert words in found["error"]
    assert "sim-at-" not in repr(found)
    office.workshop.upstream.faults()
    assert office.ask("test")["ok"]


def test_without_a_revocation_endpoint_nothing_is_revoked(office: Office):
    found = office.ask("revoke")
    assert not found["ok"]
    assert "FARM_REVOCATION_URL" in found["error"]
    assert office.workshop.state()[0] == "active"


def test_another_processs_credential_is_left_alone(office: Office):
    office.workshop.redis.zadd(keys.PROCESSES, {"here": 1})
    assert "another process" in office.ask("test", credential_id="c99")["error"]


def test_nobody_there_is_told_soon(redis: Redis):
    with pytest.raises(NoWorkerProcess):
        CredentialOperations(redis).request(CredentialOperation("default", "c1", "test"))


@pytest.fixture
def revocable(redis: Redis, redis_url: str, opener: Unsealer, upstream: Upstream) -> Iterator[Office]:
    made = Workshop(redis, redis_url, opener, upstream, pool={"revocation_url": f"{upstream.base}/oauth/revoke"})
    office = Office(made, redis_url)
    yield office
    made.close()
    office.close()


def test_a_revoked_token_is_revoked_at_the_upstream_and_out_of_service(revocable: Office):
    assert revocable.ask("revoke") == {"ok": True, "status": 200, "refresh_ms": pytest.approx(50, abs=5000)}
    assert revocable.workshop.state() == ("disabled", "revoked")
    assert revocable.workshop.upstream.counters()["dead_accounts"] == 1
