"""Tokens are refreshed by a process of their own: a worker process that dies takes no refresh along."""

import threading
from collections.abc import Iterator

import pytest

from tests.system.farm import Farm, chat_body, run_farm
from tests.waiting import eventually

ACCOUNTS = 4


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Its patience is longer than the tests."""
    yield from run_farm(tmp_path_factory, "refresher", ACCOUNTS, FARM_WORKER_PROCESSES="2", FARM_REFUSAL_PATIENCE="900")


class Chats:
    """Requests in threads, whose upstream refuses the access tokens that it has issued before."""

    def __init__(self, farm: Farm, count: int) -> None:
        """Returns once the endpoint has granted new tokens, whose answers are on the wire."""
        self._farm = farm
        self._statuses: list[int] = []
        self._threads = [threading.Thread(target=self._send) for _ in range(count)]
        farm.upstream.accounts(expire=True)
        granted = farm.upstream.counters()["refreshes"]
        for thread in self._threads:
            thread.start()
        eventually(lambda: farm.upstream.counters()["refreshes"] >= granted + count)

    def _send(self) -> None:
        self._statuses.append(self._farm.post("/v1/chat/completions", chat_body("Hello"), timeout=120).status_code)

    def join(self) -> list[int]:
        """The statuses of the replies."""
        for thread in self._threads:
            thread.join()
        return self._statuses


def total_rotations(farm: Farm) -> int:
    return sum(credential["rotations"] for credential in farm.credentials())


def test_refreshes_outlive_the_worker_processes_that_asked_for_them(farm: Farm):
    eventually(lambda: total_rotations(farm) == ACCOUNTS)
    farm.upstream.faults(token_answer_delay=4)
    chats = Chats(farm, ACCOUNTS)
    for process in farm.processes("-m workers"):
        process.kill()
    assert chats.join() == [200] * ACCOUNTS
    eventually(lambda: total_rotations(farm) == farm.upstream.counters()["refreshes"])
    assert farm.upstream.counters().get("reused_refresh_tokens", 0) == 0


def test_credential_whose_refresher_was_killed_is_in_doubt_and_requests_are_served(farm: Farm):
    farm.upstream.faults(token_answer_delay=60)
    killed = farm.refresher()
    chats = Chats(farm, 1)
    farm.upstream.faults()
    killed.kill()
    assert chats.join() == [200]
    (victim,) = eventually(lambda: [record for record in farm.credentials() if record["in_doubt_since"]])
    eventually(lambda: ("cooling", "token_in_doubt") in farm.states(victim["id"]))
    assert "dead" not in [state for state, _ in farm.states(victim["id"])]
    eventually(lambda: farm.metric("farm_tokens_in_doubt_total") == 1)
    assert farm.refresher().pid != killed.pid
    eventually(lambda: farm.metric("farm_token_refreshers") == 1)
    assert farm.get("/readyz").json()["warnings"] == []


def test_requests_wait_until_the_supervisor_has_resumed_a_stopped_refresher(farm: Farm):
    stopped, doubts = farm.refresher(), farm.metric("farm_tokens_in_doubt_total")
    stopped.suspend()
    assert Chats(farm, 1).join() == [200]
    assert farm.refresher().pid == stopped.pid
    assert "the token refresher is frozen" in farm.log()
    assert farm.metric("farm_tokens_in_doubt_total") == doubts
