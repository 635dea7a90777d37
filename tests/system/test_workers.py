"""Credentials and workers of a running farm: added, removed, shared out, refreshed, suspended."""

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import requests
from redis import Redis

from shared.redis_connection.client import connect
from tests.environment import ROOT
from tests.system.farm import Farm, start_farm
from tests.upstream import first_refresh_tokens, start_simulator
from tests.waiting import eventually


def workers(farm: Farm) -> dict[str, int]:
    return dict(farm.live_pool()["workers"])


def rq(farm: Farm, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "rq.cli", *arguments, "-u", farm.redis_url()],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


class Load:
    """Clients that send one request after the other until the end of the block."""

    def __init__(self, farm: Farm, clients: int) -> None:
        self.farm = farm
        self.outcomes: Counter[str] = Counter()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(i,)) for i in range(clients)]

    def _send(self, number: int) -> None:

        count = 0
        while not self._stop.is_set():
            count += 1
            response = self.farm.chat(f"text {number}.{count}")
            is_right = response.status_code == 200 and f"grkg {number}.{count}" in response.text
            self.outcomes["right" if is_right else f"{response.status_code} {response.text[:200]}"] += 1

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_rq_info_lists_every_worker_by_its_credential(farm: Farm):
    ids = [credential["id"] for credential in farm.credentials()]
    listed = eventually(lambda: (info := rq(farm, "info")) and "8 workers, 2 queues" in info and info)
    assert all(f"default.{credential_id} " in listed for credential_id in ids)
    assert "chat:default" in listed
    assert "batch:default" in listed


def test_added_credential_gets_a_worker_and_a_removed_one_loses_it(farm: Farm):
    extra = first_refresh_tokens(9)[8]
    report = farm.json("credentials", "add", "--label", "extra", stdin=extra + "\n")
    (added,) = report["ids"]
    eventually(lambda: f"default.{added} " in rq(farm, "info"))
    assert farm.command("credentials", "remove", added).returncode == 0
    eventually(lambda: f"default.{added} " not in rq(farm, "info"))


def test_disabled_credential_serves_no_request_until_it_is_enabled(farm: Farm):
    ids = [credential["id"] for credential in farm.credentials()]
    farm.command("credentials", "disable", *ids[:7])
    eventually(lambda: sum(workers(farm).values()) == 1)
    assert farm.chat().status_code == 200
    farm.command("credentials", "enable", *ids[:7])
    eventually(lambda: workers(farm)["idle"] == 8)


def owned_credentials(farm: Farm) -> list[int]:
    """How many credentials each worker process holds."""
    owners = [credential["owner"] for credential in farm.credentials()]
    return sorted(Counter(owner for owner in owners if owner).values())


def test_worker_processes_share_the_credentials_evenly(farm: Farm):
    eventually(lambda: owned_credentials(farm) == [4, 4])


def test_worker_process_can_start_and_stop_under_load(farm: Farm):
    farm.upstream.pace(delay=0.1)
    third = {**farm.environment, "REDIS_URL": farm.redis_url()}
    with Load(farm, 12) as load:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers"], env={**third, "FARM_WORKER_PROCESSES": "1"}, cwd=ROOT
        )

        eventually(lambda: owned_credentials(farm) == [2, 3, 3])
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        eventually(lambda: owned_credentials(farm) == [4, 4])
    assert set(load.outcomes) == {"right"}
    assert farm.upstream.counters()["collisions"] == 0


def test_killed_worker_process_is_replaced_and_no_request_fails(tmp_path: Path):
    simulator, upstream = start_simulator("--accounts", "6", "--rotate", "--delay", "1")
    farm = start_farm(tmp_path, upstream, 6, FARM_WORKER_PROCESSES="2")
    eventually(lambda: owned_credentials(farm) == [3, 3])
    responses: list[requests.Response] = []
    threads = [threading.Thread(target=lambda: responses.append(farm.chat())) for _ in range(12)]
    for thread in threads:
        thread.start()
    eventually(lambda: upstream.counters()["in_flight"] == 6)
    farm.processes("-m workers")[0].kill()
    for thread in threads:
        thread.join()
    assert [response.status_code for response in responses] == [200] * 12
    assert max(int(response.headers["x-farm-attempts"]) for response in responses) == 2
    eventually(lambda: farm.metric("farm_orphans_total") == 3)
    assert "reclaimed its 3 leases" in farm.log()
    eventually(lambda: workers(farm)["idle"] == 6)
    farm.command("stop")
    assert "Traceback" not in farm.log()
    simulator.terminate()
    simulator.communicate()


@pytest.mark.parametrize("rotate", [True, False])
def test_short_lived_tokens_are_refreshed_in_time_and_not_more_often(farm: Farm, rotate: bool):
    started_at = time.monotonic()
    farm.upstream.accounts(access_ttl=1, rotate=rotate, expire=True)
    farm.upstream.pace(delay=0.1)
    with Load(farm, 12) as load:
        eventually(lambda: farm.upstream.counters()["refreshes"] >= 8 * 4 and load.outcomes.total() > 50)
    farm.upstream.accounts(access_ttl=3600, rotate=True)
    seconds = time.monotonic() - started_at
    counters = farm.upstream.counters()
    assert set(load.outcomes) == {"right"}
    assert counters["collisions"] == 0
    assert counters.get("reused_refresh_tokens", 0) == 0
    assert counters["refreshes"] < 8 * (seconds / 0.8 + 3)


def test_dead_credential_leaves_service_and_no_request_fails(farm: Farm):
    """With a credential of its own, because a dead account stays dead."""
    victim = 9
    (added,) = farm.json("credentials", "add", stdin=first_refresh_tokens(10)[victim])["ids"]
    eventually(lambda: workers(farm)["idle"] == 9)
    farm.upstream.accounts(kill=victim, expire=True)
    with Load(farm, 9):
        eventually(lambda: farm.json("credentials", "show", added)["state"] == "dead")
    assert farm.json("credentials", "show", added)["reason"] == "invalid_grant"
    farm.command("credentials", "remove", added)
    eventually(lambda: workers(farm)["idle"] == 8)


def test_token_endpoint_that_refuses_everybody_kills_no_credential_and_is_found_when_it_is_back(farm: Farm):
    with Load(farm, 8) as load:
        farm.upstream.faults(token_refusal=1)
        farm.upstream.accounts(expire=True)
        eventually(lambda: farm.live_pool()["token_endpoint_failure"] == "invalid_grant")
        warnings = requests.get(farm.url + "/readyz", timeout=10).json()["warnings"]
        assert warnings == ["pool default: its token endpoint fails for several credentials (invalid_grant)"]
        # Longer than a single credential is given: only the breaker keeps them from being declared dead.
        time.sleep(1.5 * float(farm.environment["FARM_REFUSAL_PATIENCE"]))
        farm.upstream.faults()
        served = sum(load.outcomes.values())
        eventually(lambda: farm.live_pool()["token_endpoint_failure"] == "")
        eventually(lambda: farm.live_pool()["credentials"]["active"] == 8)
        eventually(lambda: sum(load.outcomes.values()) > served + 8)
    assert set(load.outcomes) == {"right"}
    assert [change for row in farm.credentials() for change in farm.states(row["id"]) if change[0] == "dead"] == []
    assert farm.upstream.counters().get("reused_refresh_tokens", 0) == 0


def test_workers_deleted_from_redis_register_again(farm: Farm):
    connect(farm.redis_url()).delete("rq:workers")
    eventually(lambda: "8 workers" in rq(farm, "info"))


def hold(farm: Farm, by: str) -> None:
    rq(farm, "suspend") if by == "rq suspend" else farm.admin("POST", "/pools/default/pause", json={})


def let_go(farm: Farm, by: str) -> None:
    rq(farm, "resume") if by == "rq suspend" else farm.admin("POST", "/pools/default/resume", json={})


@pytest.mark.parametrize("by", ["rq suspend", "pause of the pool"])
def test_held_workers_take_nothing_until_they_are_let_go(farm: Farm, by: str):
    """`rq suspend` holds all workers, a pause those of its pool; requests wait meanwhile."""
    hold(farm, by)
    eventually(lambda: workers(farm)["suspended"] == 8)
    responses = []
    thread = threading.Thread(target=lambda: responses.append(farm.chat()))
    thread.start()
    eventually(lambda: farm.live_pool()["queue_depth"]["interactive"] == 1)
    assert farm.upstream.counters()["served"] == 0
    assert bool(farm.live_pool()["paused_since"]) == (by != "rq suspend")
    let_go(farm, by)
    thread.join(60)
    assert responses[0].status_code == 200


def test_idle_workers_block_in_redis_and_do_not_poll(farm: Farm):
    """I2: no worker polls for a job, once what the start of the farm has to do is done."""
    redis = connect(farm.redis_url())

    def is_idle() -> bool:
        assert count_blocked_workers(redis) == 8
        redis.config_resetstat()
        started_at = time.monotonic()
        time.sleep(3)
        calls = {name: stat["calls"] for name, stat in redis.info("commandstats").items()}
        # Four processes' periodic commands (about 106 a second), RQ's cleaning of both bands, tape, samples and events
        # included; eight polling workers add hundreds.
        return calls.get("cmdstat_blmove", 0) <= 1 and sum(calls.values()) < 120 * (time.monotonic() - started_at)

    eventually(lambda: count_blocked_workers(redis) == 8)
    eventually(is_idle, within=120)
    assert count_blocked_workers(redis) == 8


def count_blocked_workers(redis: Redis) -> int:
    """Connections that are blocked in BLMOVE."""
    return sum("b" in client["flags"] and client["cmd"] == "blmove" for client in redis.client_list())


def test_cooling_credential_takes_no_job(strict: Farm):
    """I5: the only credential has a cooldown of a second, so the next request waits too."""
    strict.upstream.faults(rate_limit=1, retry_after=1)
    assert strict.chat().status_code == 429
    (credential,) = strict.credentials()
    # Read from the history, because the second may be over before the state is read.
    eventually(lambda: ("cooling", "rate_limited") in strict.states(credential["id"]))
    strict.upstream.faults()
    response = strict.chat()
    assert response.status_code == 200
    eventually(lambda: strict.credentials()[0]["state"] == "active")
