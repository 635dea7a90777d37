"""An account that is limited for one model still serves the others; what the limits are counted per is found out."""

import json
import time
from collections.abc import Callable

import pytest

from shared import clock, keys
from shared.protocol.messages import FrameKind
from tests.builders import build_request
from tests.integration.harness import WorkerHarness, collect_frames
from tests.waiting import eventually
from web.reply.mailbox import Mailbox
from workers.credentials.account_limits.verdict import LimitVerdict

StartHarness = Callable[..., WorkerHarness]
PER_MODEL = {"account_limits": "model"}


def body(model: str) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}]}).encode()


def enqueue(harness: WorkerHarness, request: str, model: str, key: str = "a") -> Mailbox:
    return harness.enqueue(request, body=body(model), model=model, key=key)


def is_served(mailbox: Mailbox) -> bool:
    return collect_frames(mailbox, within=60.0)[-1].kind is FrameKind.END


def states(harness: WorkerHarness) -> set[bytes]:
    return set(harness.redis.hvals(keys.credentials("default")))


def resting_models(harness: WorkerHarness) -> list[list[bytes]]:
    """The models for which each credential rests."""
    return [harness.redis.hkeys(keys.resting_models(worker.lease.credential_id)) for worker in harness.workers]


def verdict(harness: WorkerHarness) -> dict[bytes, bytes]:
    return harness.redis.hgetall(keys.account_limits("default"))


@pytest.fixture(params=[{"shown": True}, {"shown": False, "retry_after": 100}], ids=["headers", "retry-after"])
def limited(request: pytest.FixtureRequest) -> dict[str, object]:
    """Allowances of an upstream that limits model A only, to nothing."""
    return {"requests": -1, "window": 100, "model": "A", **request.param}


def test_account_limited_for_one_model_serves_the_others(start_harness: StartHarness, limited: dict[str, object]):
    harness = start_harness(pool=PER_MODEL)
    harness.upstream.allowances(**limited)
    enqueue(harness, "req_a", "A")
    assert all(is_served(enqueue(harness, f"req_{i}", "B")) for i in range(3))
    assert states(harness) == {b"active"}
    assert resting_models(harness) == [[b"A"]]
    assert harness.queue.count_waiting("default") == 1
    assert harness.upstream.counters()["over_limit"] == 1


def test_all_jobs_of_the_other_model_are_served_meanwhile_and_the_limited_after(start_harness: StartHarness):
    """Two accounts, three keys, both models mixed; nobody meets the limit twice, and no order is lost."""
    harness = start_harness(pool=PER_MODEL, credentials=2)
    harness.upstream.allowances(requests=1, window=100, model="A")
    mailboxes = {
        (model, i): enqueue(harness, f"req_{model}_{i}", model, key="xyz"[i % 3]) for i in range(9) for model in "AB"
    }
    assert all(is_served(mailbox) for (model, _), mailbox in mailboxes.items() if model == "B")
    eventually(lambda: harness.queue.count_waiting("default") == 7)
    assert resting_models(harness) == [[b"A"], [b"A"]]
    harness.upstream.allowances()
    for worker in harness.workers:
        harness.credentials.enable("default", worker.lease.credential_id)
    served = [is_served(mailbox) for (model, _), mailbox in mailboxes.items() if model == "A"]
    assert served == [True] * 9


def test_limited_jobs_go_on_when_the_rest_ends(start_harness: StartHarness):
    harness = start_harness(pool=PER_MODEL, credentials=2)
    harness.upstream.allowances(requests=1, window=1.0, model="A")
    mailboxes = [enqueue(harness, f"req_{i}", "A") for i in range(6)]
    assert all(is_served(mailbox) for mailbox in mailboxes)
    assert harness.upstream.counters().get("over_limit", 0) == 0


def test_resting_worker_sends_no_commands_while_the_limited_jobs_wait(start_harness: StartHarness):
    harness = start_harness(pool=PER_MODEL, credentials=2)
    harness.upstream.allowances(requests=1, window=100, model="A")
    for i in range(12):
        enqueue(harness, f"req_{i}", "A")
    eventually(lambda: harness.queue.count_waiting("default") == 10 and harness.count_idle() == 2)
    blocked = [eventually(lambda worker=worker: worker.blocking_pop.client_id) for worker in harness.workers]
    before = count_scripts(harness)
    eventually(lambda: seconds_blocked(harness, blocked) >= 1)
    assert count_scripts(harness) == before


def count_scripts(harness: WorkerHarness) -> int:
    stats = harness.redis.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "eval", "blmove"))


def seconds_blocked(harness: WorkerHarness, clients: list[int]) -> int:
    """Seconds since the last command of any of these connections."""
    idle = {int(client["id"]): int(client["idle"]) for client in harness.redis.client_list()}
    return min(idle.get(client, 0) for client in clients)


def test_pool_finds_out_that_limits_are_per_model(start_harness: StartHarness, limited: dict[str, object]):
    harness = start_harness(credentials=2)
    harness.upstream.allowances(**limited)
    for i in range(2):
        enqueue(harness, f"req_a{i}", "A")
    eventually(lambda: states(harness) == {b"cooling"})
    assert all(is_served(enqueue(harness, f"req_b{i}", "B")) for i in range(4))
    assert verdict(harness)[b"counts"] == b"model"
    eventually(lambda: states(harness) == {b"active"})
    assert resting_models(harness) == [[b"A"], [b"A"]]
    assert harness.upstream.counters()["over_limit"] <= 4


def test_pool_finds_out_that_limits_are_per_account(start_harness: StartHarness):
    harness = start_harness(credentials=2, max_attempts=8)
    harness.upstream.allowances(requests=-1, window=100)
    enqueue(harness, "req_a", "A")
    eventually(lambda: states(harness) == {b"cooling"})
    enqueue(harness, "req_b", "B")
    eventually(lambda: verdict(harness).get(b"counts") == b"account")
    refused = harness.upstream.counters()["over_limit"]
    enqueue(harness, "req_c", "C")
    assert float(verdict(harness)[b"retry_at"]) > clock.now() + 10
    rested_at = time.monotonic()
    eventually(lambda: time.monotonic() > rested_at + 1.5)
    assert harness.upstream.counters()["over_limit"] == refused == 3
    assert harness.queue.count_waiting("default") == 3
    assert states(harness) == {b"cooling"}


def test_refused_trials_are_made_less_often(start_harness: StartHarness):
    harness = start_harness(credentials=1)
    first, second = (LimitVerdict(harness.redis, "default") for _ in range(2))
    pauses = []
    for limit_verdict in (first, second, first):
        limit_verdict.record_rest("c", "A", clock.now() + 100, "auto", was_trial=True, was_refused=True)
        pauses.append(float(verdict(harness)[b"retry_at"]) - clock.now())
    assert pauses == [pytest.approx(60, abs=20), pytest.approx(120, abs=20), pytest.approx(240, abs=20)]


def test_one_credential_of_the_pool_tries_at_a_time(start_harness: StartHarness):
    harness = start_harness(credentials=1)
    until = clock.now() + 100
    for credential_id in ("c1", "c2"):
        LimitVerdict(harness.redis, "default").record_rest(credential_id, "A", until, "auto")
    harness.worker.stop()
    eventually(lambda: harness.has_ended or harness.redis.client_unblock(harness.worker.blocking_pop.client_id))
    enqueue(harness, "req_b", "B")
    first, second = (LimitVerdict(harness.redis, "default") for _ in range(2))
    assert first.decide("c1", until, "auto") == "try"
    assert second.decide("c2", until, "auto") == "wait"
    first.end_trial("c1")
    third = LimitVerdict(harness.redis, "default")
    assert third.decide("c2", until, "auto") == "try"


def test_no_trial_while_only_the_limited_model_waits(start_harness: StartHarness, limited: dict[str, object]):
    harness = start_harness(credentials=1)
    harness.upstream.allowances(**limited)
    for i in range(3):
        enqueue(harness, f"req_{i}", "A")
    eventually(lambda: states(harness) == {b"cooling"})
    limit_verdict = LimitVerdict(harness.redis, "default")
    until = clock.now() + harness.worker.runner.health.cooldown.remaining()
    assert limit_verdict.decide(harness.credential_id, until, "auto") == "wait"
    assert verdict(harness) == {}
    assert harness.redis.exists(keys.set_aside("default", "interactive")) == 0


def test_cooldown_for_another_reason_is_no_reason_to_try(start_harness: StartHarness):
    harness = start_harness(credentials=1)
    limit_verdict = LimitVerdict(harness.redis, "default")
    assert limit_verdict.decide(harness.credential_id, clock.now() + 100, "auto") == "none"
    limit_verdict.record_rest(harness.credential_id, "A", clock.now() + 20, "auto")
    assert limit_verdict.decide(harness.credential_id, clock.now() + 100, "auto") == "none"


def test_verdict_per_model_is_reversed_by_refusals_of_other_models(start_harness: StartHarness):
    harness = start_harness(credentials=1)
    limit_verdict = LimitVerdict(harness.redis, "default")
    limit_verdict.record_served("c1", was_trial=True)
    harness.redis.hset(keys.account_limits("default"), "confirmed_at", clock.now() - 60)
    until = clock.now() + 100
    assert limit_verdict.record_rest("c1", "A", until, "auto", was_refused=True) == "model"
    found = [limit_verdict.record_rest("c1", model, until, "auto", was_refused=True) for model in "BCD"]
    assert found == ["model", "model", "account"]


def test_rest_is_the_upstreams_model_under_whatever_name(start_harness: StartHarness):
    pool = {**PER_MODEL, "models": ("fast", "best", "B"), "model_map": {"fast": "A", "best": "A"}}
    harness = start_harness(pool=pool)
    harness.upstream.allowances(requests=1, window=100, model="A")
    for name in ("fast", "best"):
        harness.queue.enqueue(
            harness_request(harness, f"req_{name}", name), body("A"), upstream_model=pool["model_map"][name]
        )
    assert is_served(enqueue(harness, "req_b", "B"))
    eventually(lambda: harness.queue.count_waiting("default") == 1)
    assert resting_models(harness) == [[b"A"]]
    assert harness.upstream.counters().get("over_limit", 0) == 0


def harness_request(harness: WorkerHarness, request_id: str, model: str):
    harness.hub.open(request_id)
    return build_request(request_id, channel=harness.hub.channel(request_id), model=model)


def test_whole_credential_rests_where_the_setting_says_so(start_harness: StartHarness, limited: dict[str, object]):
    harness = start_harness(pool={"account_limits": "account"})
    harness.upstream.allowances(**limited)
    enqueue(harness, "req_a", "A")
    eventually(lambda: states(harness) == {b"cooling"})
    assert resting_models(harness) == [[]]


def test_culprits_rest_is_taken_back(start_harness: StartHarness):
    harness = start_harness(pool=PER_MODEL, credentials=3, max_attempts=8)
    harness.upstream.allowances(requests=-1, window=100, model="A", shown=False)
    frames = collect_frames(enqueue(harness, "req_a", "A"), within=60.0)
    assert frames[-1].kind in (FrameKind.END, FrameKind.FAILURE)
    eventually(lambda: resting_models(harness) == [[], [], []])
