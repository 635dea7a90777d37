"""Callers that are no HTTP connections share answers too, and leave by having their greenlet killed."""

import json
from typing import Any

import gevent
import pytest
from redis import Redis

from shared import clock, names
from shared.api_keys.store import ApiKeys
from shared.protocol.messages import RelayRequest
from shared.protocol.relay_queue import RelayQueue
from tests.integration.web.replay.conftest import CHUNKS, DONE, WHOLE, SharingFront, settle
from tests.waiting import eventually
from web.replay.answers.answer_form import AnswerForm
from web.replay.answers.answer_store import Share
from web.replay.caller import Caller
from web.replay.sharing import Sharing
from web.request.pending import PendingRequest
from web.request.rendering import NO_TIMEOUT

PATH = "/chat/completions"


def ask(front: SharingFront) -> Any:
    """Asks in a greenlet, whose value is how the answer was got, and the answer."""
    services, now = front.services.request_services, clock.now()
    request_id = names.new_request_id()
    (key,) = ApiKeys(front.redis).list()[:1]
    request = RelayRequest(
        id=request_id,
        pool="default",
        path=PATH,
        headers={"content-type": "application/json"},
        front=services.hub.front_id,
        channel=services.hub.channel(request_id),
        enqueued_at=now,
        deadline=now + 60,
        key=key.id,
        model="m",
    )
    pending_request = PendingRequest(services, request, key, None)
    sharing = Sharing((Share("name", b"k" * 32, "", 60),), form=AnswerForm(PATH, is_stream=False, has_usage=True))
    caller = Caller(pending_request, sharing, lambda: pending_request.submit(b"{}"))

    def read() -> tuple[str, bytes]:
        joined = front.services.runs.open(caller)
        try:
            _, frames = joined.follower.wait_for_head(NO_TIMEOUT)
            return joined.outcome, b"".join(joined.follower.iter_body(frames, NO_TIMEOUT))
        finally:
            joined.follower.close()

    return gevent.spawn(read)


def test_they_share_a_run_and_the_kept_answer(front: SharingFront):
    asked = [ask(front) for _ in range(3)]
    front.serve()
    assert sorted(front.answer(each) for each in asked) == [("joined", WHOLE), ("joined", WHOLE), ("miss", WHOLE)]
    settle(front)
    outcome, answer = front.answer(ask(front))
    assert (outcome, json.loads(answer)["choices"]) == ("hit", json.loads(WHOLE)["choices"])


def test_a_stream_comes_whole(front: SharingFront):
    first = ask(front)
    eventually(lambda: front.services.runs.followers)
    joined = ask(front)
    eventually(lambda: len(front.services.runs.followers) == 2)
    front.serve_stream(*CHUNKS, DONE)
    front.answer(first)
    _, answer = front.answer(joined)
    assert json.loads(answer)["choices"][0]["message"]["content"] == "Hi there"


@pytest.mark.parametrize("has_begun", [True, False])
def test_run_ends_with_the_greenlet_of_its_last_caller(front: SharingFront, redis: Redis, has_begun: bool):
    asked = [ask(front) for _ in range(2)]
    eventually(lambda: front.waiting == 1)
    eventually(lambda: len(front.services.runs.followers) == 2)
    if has_begun:
        front.serve_stream(CHUNKS[0], end=None)
    asked[0].kill()
    assert front.services.runs.list_running()
    asked[1].kill()
    settle(front)
    assert len(front.services.hub) == 0
    eventually(lambda: redis.keys("farm:run:*") == [])
    assert front.waiting == 0


def test_caller_that_leaves_while_its_request_is_enqueued_leaves_no_job(
    front: SharingFront, redis: Redis, monkeypatch: pytest.MonkeyPatch
):
    enqueue, enqueued = RelayQueue.enqueue, []

    def enqueue_slowly(self: RelayQueue, *args: Any) -> Any:
        enqueued.append(enqueue(self, *args))
        gevent.sleep(60)

    monkeypatch.setattr(RelayQueue, "enqueue", enqueue_slowly)
    first = ask(front)
    eventually(lambda: enqueued)
    second = ask(front)
    monkeypatch.undo()
    first.kill()
    services = front.services.request_services
    ((request_id, pool),) = services.hub.abandoned.items()
    # The hub does so within two seconds.
    assert services.queue.cancel(pool, request_id) == "withdrawn"
    services.hub.abandoned.clear()
    front.serve()
    assert front.answer(second) == ("miss", WHOLE)
    eventually(lambda: redis.keys("farm:run:*") == [])
