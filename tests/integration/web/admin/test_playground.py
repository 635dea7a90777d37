"""Operators ask a model in the playground, and see what the farm does; closing the reply stops the upstream."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import gevent
import pytest
from redis import Redis
from werkzeug.test import TestResponse

from shared import keys
from shared.api_keys.admin_tokens import AdminTokens
from shared.api_keys.api_key import CONSOLE_KEY_ID
from shared.api_keys.console_key import ensure_console_key
from shared.api_keys.store import ApiKeys, hash_secret
from shared.observability.request_log import LogFilter, RequestLog
from tests.integration.front_harness import FrontHarness
from tests.integration.harness import WorkerHarness
from tests.integration.workers.process.test_operation_inbox import OneWorkerSet
from tests.waiting import eventually
from workers.process.command_listener import CommandListener
from workers.process.operation_inbox import OperationInbox

Event = tuple[str, dict[str, Any]]


class Playground(FrontHarness):
    """A front whose playground is used, and a worker process that it can send operations to."""

    def __init__(self, redis: Redis, redis_url: str) -> None:
        super().__init__(redis, redis_url)
        secret, _ = AdminTokens(redis).create("tests", "admin")
        self.headers = {"authorization": f"Bearer {secret}"}

    def post(self, **fields: Any) -> TestResponse:
        body = {"model": "m", "user": "Hello", **fields}
        return self.app.test_client().post("/admin/api/v1/playground", json=body, headers=self.headers)

    def ask(self, **fields: Any) -> list[Event]:
        response = self.post(**fields)
        assert (response.status_code, response.mimetype) == (200, "text/event-stream"), response.text
        return read_events(response.text)

    def refused(self, **fields: Any) -> tuple[int, str]:
        response = self.post(**fields)
        return response.status_code, response.json["error"]["code"]  # type: ignore[index]


def read_events(text: str) -> list[Event]:
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("event: ")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


@pytest.fixture
def playground(redis: Redis, redis_url: str) -> Iterator[Playground]:
    with closing(Playground(redis, redis_url)) as playground:
        yield playground


@pytest.fixture
def harness(start_harness: Callable[..., WorkerHarness], playground: Playground) -> Iterator[WorkerHarness]:
    """One worker that takes jobs, operations, and acknowledgements of the playground's front."""
    harness = start_harness(first_byte_timeout=60, idle_timeout=60)
    redis = harness.redis
    redis.hset(keys.process("here"), "capacity", 1)
    harness.credentials.set_label("default", harness.credential_id, "first")
    inbox = OperationInbox(redis, "here", OneWorkerSet(harness), None, dict)  # type: ignore[arg-type]
    listener = CommandListener(redis, harness.services.streams.handle_acks)
    with ExitStack() as stack:
        for work in (inbox.run, listener.run, playground.services.hub.ack_publisher.run):
            stack.callback(gevent.spawn(work).kill)
        eventually(lambda: redis.pubsub_numsub(keys.REPLY_ACKS)[0][1])
        harness.wait_until_idle()
        yield harness


def test_reply_comes_with_all_that_the_farm_did(playground: Playground, harness: WorkerHarness):
    events = playground.ask(system="Be brief", user="你好", temperature=0.5)
    names = [name for name, _ in events if name != "waiting"]
    assert (names[0], names[1], names[-1], set(names[2:-1])) == ("admitted", "started", "ended", {"piece"})
    (_, admitted), (_, ended) = events[0], events[-1]
    assert json.loads(admitted["body"])["messages"][0] == {"role": "system", "content": "Be brief"}
    assert (json.loads(admitted["body"])["temperature"], admitted["credential"]) == (0.5, "")
    pieces = [fields for name, fields in events if name == "piece"]
    assert "".join(piece["text"] for piece in pieces)
    assert "data: [DONE]" in "".join(piece["raw"] for piece in pieces)
    assert (ended["status"], ended["code"], ended["attempts"]) == (200, "", 1)
    assert (ended["credential"], ended["credential_name"]) == (harness.credential_id, "first")
    assert ended["completion_tokens"] > 0
    (entry,) = [stored.entry for stored in RequestLog(harness.redis).read_newest_first(LogFilter())]
    assert (entry.key, entry.request) == (CONSOLE_KEY_ID, admitted["request"])


def test_request_that_waits_tells_its_position_and_leaves_the_queue_when_it_is_closed(
    playground: Playground, redis: Redis
):
    redis.hset(keys.credentials("default"), "c9", "active")
    response = playground.app.test_client().post(
        "/admin/api/v1/playground",
        json={"model": "m", "user": "Hello"},
        headers=playground.headers,
        buffered=False,
    )
    stream = iter(response.response)
    (name, admitted), *_ = read_events(next(stream).decode())
    assert name == "admitted"
    (name, waiting), *_ = read_events(next(stream).decode())
    assert (name, waiting["state"], waiting["position"], waiting["eta"]) == ("waiting", "queued", 1, None)
    assert redis.exists(f"rq:job:{admitted['request']}")
    for key, state in ((keys.breaker("default"), "upstream_down"), (keys.paused("default"), "paused")):
        redis.hset(key, "reason", "timeout") if state == "upstream_down" else redis.set(key, "1 tests")
        (_, waiting), *_ = read_events(next(stream).decode())
        assert (waiting["state"], waiting["position"]) == (state, 1)
    response.close()
    assert not redis.exists(f"rq:job:{admitted['request']}")


def test_page_is_there_before_the_list_of_models_and_says_where_to_get_it(
    playground: Playground, harness: WorkerHarness
):
    def load(path: str) -> str:
        return playground.app.test_client().get(path, headers=playground.headers).text

    assert 'name="model" value=""' in (page := load("/admin/playground"))
    assert 'data-url="/admin/api/v1/models"' in page
    assert "sim-" in load("/admin/api/v1/models")
    assert 'name="model" value="sim-' in (page := load("/admin/playground"))
    assert "/admin/api/v1/models" not in page


@pytest.mark.parametrize("direct", [False, True])
def test_stop_ends_the_upstream_request(playground: Playground, harness: WorkerHarness, direct: bool):
    harness.upstream.pace(chunks=1000, chunk_delay=0.1)
    chosen = {"credential": harness.credential_id} if direct else {}
    response = playground.post(**chosen)
    stream = iter(response.response)
    while not next(stream).startswith(b"event: piece"):
        pass
    assert harness.upstream.counters()["in_flight"] == 1
    response.close()
    eventually(lambda: harness.upstream.counters()["in_flight"] == 0)


def test_stop_before_the_first_byte_ends_a_request_to_one_credential(playground: Playground, harness: WorkerHarness):
    harness.upstream.pace(delay=60)
    response = playground.post(credential=harness.credential_id)
    stream = iter(response.response)
    next(stream)
    eventually(lambda: harness.upstream.counters()["in_flight"] == 1)
    response.close()
    eventually(lambda: harness.upstream.counters()["in_flight"] == 0)


def test_request_to_one_credential_passes_the_queue_whatever_its_state(playground: Playground, harness: WorkerHarness):
    harness.credentials.set_state("default", harness.credential_id, "disabled", "by a person")
    harness.redis.lpush("rq:queue:chat:default", "req_of_somebody_else")
    events = playground.ask(credential=harness.credential_id, stream=False)
    ended = events[-1][1]
    assert (ended["status"], ended["credential_name"], ended["attempts"]) == (200, "first", 1)
    (piece,) = [fields for name, fields in events if name == "piece"]
    assert piece["text"]
    assert json.loads(piece["raw"])["choices"]
    assert harness.credential_state() == ("disabled", "by a person")


def test_error_of_one_credential_is_shown_and_neither_retried_nor_held_against_it(
    playground: Playground, harness: WorkerHarness
):
    harness.upstream.faults(rate_limit=1)
    ended = playground.ask(credential=harness.credential_id)[-1][1]
    assert (ended["status"], ended["attempts"], bool(ended["message"])) == (429, 1, True)
    assert harness.credential_state()[0] == "active"


def test_refused_token_of_one_credential_is_told(playground: Playground, harness: WorkerHarness):
    harness.upstream.accounts(kill=0)
    harness.upstream.accounts(expire=True)
    ended = playground.ask(credential=harness.credential_id)[-1][1]
    assert (ended["status"], ended["code"]) == (502, "upstream_login_failed")
    assert "invalid_grant" in ended["message"]


def test_death_of_the_worker_process_ends_the_request(
    playground: Playground, redis: Redis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("web.admin.playground.progress.LOG_PATIENCE_SECONDS", 0)
    redis.hset(keys.credentials("default"), "c9", "active")
    redis.hset(keys.credential("c9"), "pool", "default")
    redis.set(keys.lease("c9"), "gone:1")
    ended = playground.ask(credential="c9")[-1][1]
    assert (ended["status"], ended["code"]) == (502, "worker_lost")


def test_key_of_the_playground_has_no_secret_and_limits_like_others(playground: Playground, redis: Redis):
    assert playground.refused(pool="nowhere") == (404, "not_found")
    assert playground.refused(max_tokens=7.0) == (503, "no_credentials")
    assert playground.refused(max_tokens=7.5) == (400, "invalid_parameter")
    (key,) = [key for key in ApiKeys(redis).list() if key.id == CONSOLE_KEY_ID]
    assert (key.name, key.hint, key.concurrency) == ("console", "", 4)
    assert ApiKeys(redis).find(hash_secret(CONSOLE_KEY_ID)) is None
    revoked = playground.app.test_client().post(
        "/admin/api/v1/keys/console/revoke", json={}, headers=playground.headers
    )
    assert (revoked.status_code, revoked.json["error"]["code"]) == (409, "conflict")  # type: ignore[index]
    ApiKeys(redis).update(CONSOLE_KEY_ID, {"models": ["gpt-*"]})
    assert playground.refused() == (404, "model_not_found")
    ApiKeys(redis).update(CONSOLE_KEY_ID, {"enabled": False})
    assert playground.refused() == (409, "conflict")
    assert ensure_console_key(redis).enabled is False


def test_unknown_credential_and_missing_workers_are_refused(playground: Playground, redis: Redis):
    assert playground.refused(credential="nobody") == (404, "not_found")
    redis.hset(keys.credentials("default"), "c9", "active")
    redis.hset(keys.credential("c9"), "pool", "default")
    assert playground.refused(credential="c9") == (503, "no_worker")
