"""FARM_ON_DISCONNECT=drain: a disconnected caller's response is read to its end, and a queued request is cancelled."""

import contextlib
from pathlib import Path

import requests

from tests.system.farm import KEY, chat_body, start_farm
from tests.upstream import start_simulator
from tests.waiting import eventually


def test_a_response_is_drained_and_a_queued_request_is_cancelled(tmp_path: Path):
    simulator, upstream = start_simulator("--accounts", "1", "--chunks", "10", "--chunk-delay", "0.2")
    farm = start_farm(tmp_path, upstream, 1, FARM_ON_DISCONNECT="drain")
    url, headers = f"{farm.url}/v1/chat/completions", {"authorization": f"Bearer {KEY}"}
    streaming = requests.post(url, json=chat_body("a b c", stream=True), headers=headers, stream=True, timeout=10)
    next(streaming.iter_content(None))
    with contextlib.suppress(requests.Timeout):
        requests.post(url, json=chat_body("waits"), headers=headers, timeout=0.3)
    streaming.close()
    eventually(lambda: upstream.counters()["in_flight"] == 0)
    assert upstream.counters().get("completion_tokens"), "the response was not read to its end"
    eventually(lambda: farm.metric("farm_stream_ends_total") == 1)
    assert upstream.counters()["served"] == 1, "the second request has no caller any more"
    assert farm.live_pool()["queue_depth"]["interactive"] == 0
    farm.command("stop")
    simulator.terminate()
    simulator.communicate()
