"""The request path in docs/architecture.md names the calls that a request makes, in their order."""

import re
import sys
from typing import Any

from redis import Redis

from tests.environment import ROOT
from tests.integration.front_harness import FrontHarness
from tests.integration.harness import WorkerHarness
from tests.waiting import eventually

#: A call as the document names it: a file and what is defined there.
CALL = re.compile(r"`((?:web|shared|workers)/[\w/]+\.py):([\w.]+)`")


def documented_calls() -> list[tuple[str, str]]:
    text = (ROOT / "docs" / "architecture.md").read_text()
    section = text.partition("## The way of one request")[2].partition("\n## ")[0]
    return CALL.findall(section)


def record_calls(work: Any) -> list[tuple[str, str]]:
    """Every function by its file and qualified name, in the order in which it was first entered or returned from.

    An idle worker has entered its blocking pop before the request comes, and returns from it.
    """
    seen: dict[tuple[str, str], None] = {}
    prefix = f"{ROOT}/"

    def record(frame: Any, event: str, argument: Any) -> None:
        if event in ("call", "return") and frame.f_code.co_filename.startswith(prefix):
            seen.setdefault((frame.f_code.co_filename.removeprefix(prefix), frame.f_code.co_qualname))

    before = sys.getprofile()
    sys.setprofile(record)
    try:
        work()
    finally:
        sys.setprofile(before)
    return list(seen)


def test_documented_calls_are_made_in_their_order(redis: Redis, redis_url: str, harness: WorkerHarness):
    front = FrontHarness(redis, redis_url)
    # So far apart that frames leave before the response has ended.
    harness.upstream.pace(chunks=5, chunk_delay=0.05)
    worker = harness.worker

    def relay_one() -> None:
        front.call(front.build_environ(stream=True))
        eventually(lambda: worker.blocking_pop.client_id and not worker.runner.busy_since)

    relay_one()
    recorded = record_calls(relay_one)
    front.close()
    documented = documented_calls()
    assert len(documented) >= 20
    assert [call for call in documented if call not in recorded] == []
    for side in ("web/", "workers/"):
        calls = [call for call in documented if call[0].startswith(side)]
        assert calls == sorted(calls, key=recorded.index)
