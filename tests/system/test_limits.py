"""Clients that send more at once than their key may run are served, all of it, within the limits of the key."""

import sys
from concurrent.futures import ThreadPoolExecutor

import requests

from tests.environment import ROOT
from tests.system.clients.test_clients import run
from tests.system.farm import Farm, chat_body
from tests.waiting import eventually

#: 40 calls at once with the SDK's defaults, one of three streamed.
BURST = """
import asyncio, sys
from openai import AsyncOpenAI

async def main():
    async with AsyncOpenAI(base_url=sys.argv[1], api_key=sys.argv[2]) as client:
        async def ask(number):
            messages = [{"role": "user", "content": f"text {number}"}]
            if number % 3:
                completion = await client.chat.completions.create(model="sim-translate", messages=messages)
                return completion.choices[0].message.content
            stream = await client.chat.completions.create(model="sim-translate", messages=messages, stream=True)
            return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
        return await asyncio.gather(*map(ask, range(40)))

print(*sorted(asyncio.run(main())), sep=chr(10))
"""


def create_key(farm: Farm, **fields: object) -> str:
    return str(farm.admin("POST", "/keys", json={"name": "bound", **fields}).json()["key"])


def test_sdk_gets_40_of_40_with_a_key_for_5(farm: Farm):
    farm.upstream.pace(delay=0.1)
    key = create_key(farm, concurrency=5)
    printed = run(sys.executable, "-c", BURST, f"{farm.url}/v1", key, cwd=ROOT)
    assert printed.split("\n")[:-1] == sorted(f"grkg {number}" for number in range(40))
    counters = farm.upstream.counters()
    assert (counters["served"], counters["most_in_flight"], counters["collisions"]) == (40, 5, 0)


def test_only_beyond_max_waiting_a_caller_is_refused_and_the_limit_can_be_raised(farm: Farm):
    farm.upstream.pace(chunks=2, chunk_delay=60)
    created = farm.admin("POST", "/keys", json={"concurrency": 1, "max_waiting": 2}).json()
    assert created["max_waiting"] == 2

    def chat(_: int) -> requests.Response:
        return farm.post("/v1/chat/completions", chat_body(), key=created["key"], timeout=60)

    with farm.post("/v1/chat/completions", chat_body(stream=True), key=created["key"], stream=True) as running:
        assert running.status_code == 200
        with ThreadPoolExecutor(2) as threads:
            held = [threads.submit(chat, number) for number in range(2)]
            eventually(lambda: farm.live_pool()["held"]["interactive"] == 2)
            assert farm.metric("farm_requests_held") == 2
            refused = [chat(number) for number in range(3)]
            assert [response.status_code for response in refused] == [429] * 3
            assert all(1 <= int(response.headers["retry-after"]) <= 60 for response in refused)
            assert farm.upstream.counters()["in_flight"] == 1
            farm.admin("PATCH", f"/keys/{created['id']}", json={"concurrency": 2})
            assert [request.result().status_code for request in held] == [200, 200]
    assert farm.live_pool()["held"] == {"interactive": 0, "batch": 0}


def test_caller_who_leaves_lets_the_next_one_start(farm: Farm):
    farm.upstream.pace(chunks=2, chunk_delay=60)
    key = create_key(farm, concurrency=1)
    with ThreadPoolExecutor(1) as threads:
        with farm.post("/v1/chat/completions", chat_body(stream=True), key=key, stream=True) as running:
            assert running.status_code == 200
            held = threads.submit(farm.post, "/v1/chat/completions", chat_body(), key=key, timeout=60)
            eventually(lambda: farm.live_pool()["held"]["interactive"] == 1)
        assert held.result().status_code == 200


def test_revoked_key_is_refused_within_seconds(farm: Farm):
    created = farm.admin("POST", "/keys", json={"name": "short-lived"}).json()
    assert farm.get("/v1/models", key=created["key"]).status_code == 200
    farm.admin("POST", f"/keys/{created['id']}/revoke", json={})
    eventually(lambda: farm.get("/v1/models", key=created["key"]).status_code == 401)
