"""A front whose workers are played by the test, and callers that share answers."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import gevent
import pytest
from redis import Redis

from shared import keys
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.redis_connection.client import connect
from tests.integration.web.test_app import CHAT_BODY, Front
from tests.waiting import eventually

ANSWER = {
    "id": "1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
}
WHOLE = json.dumps({**ANSWER, "usage": {"prompt_tokens": 3, "completion_tokens": 1}}).encode()


def chunk(**members: Any) -> bytes:
    return b"data: " + json.dumps({"id": "1", **members}).encode() + b"\n\n"


CHUNKS = (
    chunk(choices=[{"index": 0, "delta": {"role": "assistant", "content": "Hi"}, "finish_reason": None}]),
    chunk(choices=[{"index": 0, "delta": {"content": " there"}, "finish_reason": None}]),
    chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]),
)
USAGE_CHUNK = chunk(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 2})
DONE = b"data: [DONE]\n\n"


class SharingFront(Front):
    """A front, its callers, and a count of the requests that its workers got."""

    def __init__(self, redis: Redis, redis_url: str, **settings: Any) -> None:
        super().__init__(redis, redis_url, **settings)
        self.runs = 0
        self._callers: list[gevent.Greenlet] = []

    def ask(self, idempotency_key: str = "", secret: str = "", headers: Any = (), **fields: Any) -> Any:
        """Sends a request in a greenlet, whose value is its response, read to the end."""
        sent = {"authorization": f"Bearer {secret or self.secret}", **dict(headers)}
        if idempotency_key:
            sent["idempotency-key"] = idempotency_key
        path = fields.pop("path", "/v1/chat/completions")

        def send() -> Any:
            response = self.client.post(path, json=CHAT_BODY | fields, headers=sent)
            _ = response.data
            response.close()
            return response

        return self._spawn(send)

    def _spawn(self, *call: Any, **options: Any) -> gevent.Greenlet:
        self._callers.append(gevent.spawn(*call, **options))
        return self._callers[-1]

    def ask_form(self, boundary: str, content: str, idempotency_key: str = "") -> Any:
        """Sends a form in a greenlet, whose value is its response."""
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in (("model", "m"), ("file", content))
        ]
        data = "".join([*parts, f"--{boundary}--\r\n"]).encode()
        headers = {"authorization": f"Bearer {self.secret}"}
        headers |= {"idempotency-key": idempotency_key} if idempotency_key else {}
        type_ = f"multipart/form-data; boundary={boundary}"
        return self._spawn(self.client.post, "/v1/audio/transcriptions", data=data, content_type=type_, headers=headers)

    @property
    def waiting(self) -> int:
        return self.services.request_services.queue.count_waiting("default")

    def serve(self, content_type: str = "application/json", *parts: bytes, status: int = 200, **options: Any) -> str:
        self.runs += 1
        return self.reply(status, content_type, *(parts or (WHOLE,)), **options)

    def serve_stream(self, *chunks: bytes, **options: Any) -> str:
        return self.serve("text/event-stream", *(chunks or (*CHUNKS, DONE)), **options)

    def answer(self, asked: Any) -> Any:
        return asked.get(timeout=30)

    def has_settled(self) -> bool:
        """Whether no run is left, so that what is to be kept has been."""
        return not self.services.runs.list_running()

    def abandon_requests(self) -> None:
        """Ends what a test has left, so that it is not in the way of the next one."""
        gevent.killall(self._callers)
        self._callers.clear()
        for run in self.services.runs.list_running():
            run.cancel()


@pytest.fixture(scope="module")
def module_redis(redis_url: str) -> Iterator[Redis]:
    redis = connect(redis_url)
    redis.flushall()
    Unsealer("a secret key for tests").ensure_sealing_key(redis)
    Credentials(redis).add("default", "token")
    yield redis
    redis.connection_pool.disconnect()


@pytest.fixture(scope="module")
def started_fronts() -> list[SharingFront]:
    """The fronts of the module's tests."""
    return []


@pytest.fixture(scope="module")
def start_front(
    module_redis: Redis, redis_url: str, started_fronts: list[SharingFront]
) -> Iterator[Callable[..., SharingFront]]:
    """Starts fronts that last as long as the module's tests."""
    with ExitStack() as fronts:

        def start(**settings: Any) -> SharingFront:
            front = SharingFront(module_redis, redis_url, **{"keepalive": 60, **settings})
            started_fronts.append(fronts.enter_context(closing(front)))
            return front

        yield start


@pytest.fixture(scope="module")
def module_front(start_front: Callable[..., SharingFront]) -> SharingFront:
    return start_front()


@pytest.fixture
def redis(module_redis: Redis, started_fronts: list[SharingFront]) -> Iterator[Redis]:
    """Without what an earlier test has left: requests, answers, runs, and entries of the request log."""
    names = module_redis.keys("farm:answer*") + module_redis.keys("farm:run*") + [keys.REQUEST_LOG]
    module_redis.delete(*names)
    yield module_redis
    for front in started_fronts:
        front.abandon_requests()
    for front in started_fronts:
        settle(front)


@pytest.fixture
def front(module_front: SharingFront, redis: Redis) -> Iterator[SharingFront]:
    yield module_front
    assert module_front.waiting == 0
    settle(module_front)


def settle(front: SharingFront) -> None:
    eventually(front.has_settled)
