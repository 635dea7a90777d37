"""Answers outlive connections and fronts, and the same question is asked of the upstream once."""

import random
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
from redis import Redis

from bench.cut_client import CutClient, read_reply
from shared import keys
from simulator.responses import translate
from tests.system.farm import KEY, Farm, chat_body
from tests.waiting import eventually

#: Requests whose connections are cut, and those at a time.
CUT_REQUESTS, CLIENTS = 16, 8


def test_streams_whose_connection_is_cut_are_whole_and_run_once(farm: Farm):
    farm.upstream.pace(delay=0.1, chunks=20, chunk_delay=0.02)
    client = CutClient(farm.port, KEY, random.Random(1))
    texts = [f"paragraph {number} " + "of a book " * 20 for number in range(CUT_REQUESTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(client.ask, texts, [f"cut-{number}" for number in range(CUT_REQUESTS)]))
    assert answers == [translate(text) for text in texts]
    assert client.cuts >= CUT_REQUESTS
    assert farm.upstream.counters()["served"] == CUT_REQUESTS


@pytest.fixture
def caching_key(farm: Farm) -> dict[str, Any]:
    """A key with a cache; answers that other tests have had kept have other scopes."""
    return dict(farm.admin("POST", "/keys", json={"name": "cache", "cache_ttl": 600, "quota_tokens": 10**6}).json())


def test_copies_of_a_page_are_run_once_over_both_fronts_and_all_right(farm: Farm, caching_key: dict[str, Any]):
    farm.upstream.pace(delay=0.3)
    texts = [f"text {number}" for number in range(5)] * 10

    def ask(text: str) -> tuple[str, str]:
        response = farm.post("/v1/chat/completions", chat_body(text), caching_key["key"])
        return response.json()["choices"][0]["message"]["content"], response.headers["x-farm-cache"]

    with ThreadPoolExecutor(len(texts)) as pool:
        answers = list(pool.map(ask, texts))
    assert [content for content, _ in answers] == [translate(text) for text in texts]
    assert sum(outcome == "miss" for _, outcome in answers) == 5
    assert farm.upstream.counters()["served"] == 5
    # Usage is rolled up from the log, a second later: 50 requests, and the tokens of five.
    usage = eventually(lambda: find_usage(farm, caching_key["id"], 50))
    entries = farm.admin("GET", "/logs", params={"key": caching_key["id"], "limit": 100}).json()["data"]
    paid = [entry for entry in entries if entry["prompt_tokens"]]
    assert len(paid) == 5
    assert {entry["end"] for entry in entries if not entry["prompt_tokens"]} <= {"hit", "joined"}
    assert usage["prompt_tokens"] == sum(entry["prompt_tokens"] for entry in paid)
    billed = farm.get("/v1/dashboard/billing/usage", caching_key["key"]).json()["total_usage"]
    assert billed == pytest.approx((usage["prompt_tokens"] + usage["completion_tokens"]) / 10)


def find_usage(farm: Farm, key_id: str, count: int) -> dict[str, Any]:
    """The key's usage once so many requests are in it; empty before."""
    rows = farm.admin("GET", "/usage", params={"key": key_id}).json()["data"]
    found = [row for row in rows if row["requests"] == count]
    return dict(found[0]) if found else {}


def find_front(farm: Farm, connection: socket.socket) -> psutil.Process:
    """The front that has accepted the connection."""
    port = connection.getsockname()[1]

    def find() -> psutil.Process | None:
        for front in farm.processes("gunicorn"):
            if any(each.raddr and each.raddr.port == port for each in front.net_connections()):
                return front
        return None

    return eventually(find)


def test_run_of_a_killed_front_is_run_anew_for_the_callers_of_the_other(farm: Farm):
    farm.upstream.pace(delay=30)
    redis, client = Redis.from_url(farm.redis_url()), CutClient(farm.port, KEY, random.Random(1))
    callers = [client.open_stream("Hello", "killed")]
    eventually(lambda: redis.keys(keys.shared_run("*")))
    fronts = [find_front(farm, callers[0])]
    while fronts[-1] == fronts[0]:
        callers.append(client.open_stream("Hello", "killed"))
        fronts.append(find_front(farm, callers[-1]))
    eventually(lambda: redis.keys(keys.run_export("*", "*")))
    farm.upstream.pace()
    fronts[0].kill()
    assert read_reply(read_all(callers[-1])) == translate("Hello")
    assert farm.upstream.counters()["served"] == 2
    for caller in callers:
        caller.close()


def read_all(connection: socket.socket) -> bytes:
    connection.settimeout(60)
    return b"".join(iter(lambda: connection.recv(65_536), b""))
