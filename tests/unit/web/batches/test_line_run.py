"""When a line is tried again, and what its result is."""

from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from gevent.event import Event

from shared.api_keys.api_key import ApiKey
from shared.batches.batch import Batch
from shared.batches.running_line import RunningLine
from shared.files.file_record import FileRecord
from shared.observability.counters import Counters
from web.batches import line_run
from web.batches.line_run import MAX_RATE_LIMITED_TRIES, MAX_TRIES, LineRun
from web.batches.lines.line_request import REFUSALS
from web.batches.lines.results import LineReply
from web.batches.services import BatchServices

GOOD = LineReply(200, "req_1", b'{"usage": {"prompt_tokens": 3}}')
BATCH = Batch("b", "k", "/v1/completions", "f", "f", "f", 1, "24h", 2)


@dataclass
class Services:
    """A farm that gives these replies, and the record of the line."""

    replies: list[LineReply]
    may_begin: bool = True
    counted_as: str = ""
    usage: Any = None
    is_released: bool = False
    front_id: str = "f1"
    counters: Counters = field(default_factory=Counters)

    @property
    def lines(self) -> "Services":
        return self

    requests = lines

    def ask(self, *_: Any) -> LineReply:
        return self.replies.pop(0)

    def begin(self, *_: Any, **__: Any) -> bool:
        return self.may_begin

    def record_result(self, _id: str, _number: int, _run: RunningLine, counted_as: str, _: bytes, usage: Any) -> bool:
        self.counted_as, self.usage = counted_as, usage
        return True

    def release(self, *_: Any) -> None:
        self.is_released = True


def run(services: Services, stopped: Event | None = None) -> None:
    key, running = ApiKey(id="k", hint="", created_at=0), RunningLine("f1", "n", 0, 0, 1)
    record = cast("FileRecord", None)
    shared = cast("BatchServices", services)
    LineRun(shared, BATCH, record, 1, running, b"", lambda: key, stopped or Event()).run()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_run, "find_pause", lambda *_: 0.0)


@pytest.mark.parametrize("code", sorted(REFUSALS))
def test_a_refusal_of_the_farm_is_waited_out(code: str):
    services = Services([LineReply(502, "", b"{}", code)] * 20 + [GOOD])
    run(services)
    assert (services.counted_as, services.usage, services.replies) == ("completed", {"input_tokens": 3}, [])


@pytest.mark.parametrize(("status", "tries"), [(500, MAX_TRIES), (408, MAX_TRIES), (429, MAX_RATE_LIMITED_TRIES)])
def test_what_the_upstream_fails_is_tried_a_few_times(status: int, tries: int):
    services = Services([LineReply(status, "", b"{}")] * (tries - 1) + [GOOD])
    run(services)
    assert services.counted_as == "completed"
    services = Services([LineReply(status, "", b"{}")] * tries + [GOOD])
    run(services)
    assert (services.counted_as, services.replies) == ("failed", [GOOD])


def test_other_errors_are_the_result():
    services = Services([LineReply(422, "", b"{}"), GOOD])
    run(services)
    assert (services.counted_as, services.replies) == ("failed", [GOOD])


@pytest.mark.parametrize("is_stopped", [True, False], ids=["front stopped", "lease lost"])
def test_a_line_that_may_not_go_on_here_is_left_to_others(is_stopped: bool):
    stopped = Event()
    if is_stopped:
        stopped.set()
    services = Services([LineReply(429, "", b"{}", "queue_full"), GOOD], may_begin=is_stopped)
    run(services, stopped)
    assert services.is_released and not services.counted_as and services.replies == [GOOD]


def test_a_shared_reply_adds_nothing_to_the_usage():
    services = Services([LineReply(200, "req_1", GOOD.body, is_shared=True)])
    run(services)
    assert (services.counted_as, services.usage) == ("completed", {})
