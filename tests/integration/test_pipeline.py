"""Commands of many greenlets over one connection: answers arrive where they were asked for, whatever happens to it."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from shared.pipeline import Pipeline
from tests.waiting import eventually

ECHO = "return {KEYS[1], ARGV[1]}"


def all_at_once(works: list[Callable[[], Any]]) -> list[Any]:
    return [one.get(timeout=5) for one in [gevent.spawn(work) for work in works]]


def reads(redis: Redis) -> int:
    """How often Redis has read from a connection, this time included."""
    return int(redis.info("stats")["total_reads_processed"])


def reads_at_rest(redis: Redis) -> int:
    """The same, when the connections that other tests have left behind are closed: Redis reads their ends."""
    gc.collect()
    return eventually(lambda: (before := reads(redis)) + 1 == reads(redis) and before + 1)


def cut(redis: Redis, pipeline: Pipeline) -> None:
    redis.client_kill_filter(_id=pipeline.ask("CLIENT", "ID"))


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    (tmp_path / "echo.lua").write_text(ECHO)
    return tmp_path / "echo.lua"


def test_everybody_gets_the_answer_to_his_own_question(redis: Redis):
    pipeline = Pipeline(redis)
    works = [lambda i=i: pipeline.ask("ECHO", str(i)) for i in range(200)]
    assert all_at_once(works) == [str(i).encode() for i in range(200)]


def test_what_is_asked_together_travels_together(redis: Redis):
    pipeline = Pipeline(redis)
    pipeline.ask("PING")
    before = reads_at_rest(redis)
    all_at_once([lambda: pipeline.ask("PING")] * 50)
    assert reads(redis) - before == 2


def test_a_batch_is_bounded(redis: Redis):
    pipeline = Pipeline(redis, most=5)
    pipeline.ask("PING")
    before = reads_at_rest(redis)
    all_at_once([lambda: pipeline.ask("PING")] * 50)
    assert reads(redis) - before == 11


def test_a_refusal_reaches_only_who_asked_for_it(redis: Redis):
    pipeline = Pipeline(redis)
    redis.set("text", "no list")

    def push() -> str:
        with pytest.raises(ResponseError):
            pipeline.ask("LPUSH", "text", "1")
        return "refused"

    assert all_at_once([lambda: pipeline.ask("PING"), push, lambda: pipeline.ask("GET", "text")]) == [
        b"PONG",
        "refused",
        b"no list",
    ]


def test_a_script_is_known_to_each_new_connection_and_after_a_flush(redis: Redis, echo: Path):
    pipeline = Pipeline(redis)
    script = pipeline.script(echo)
    assert script(["k"], ["v"]) == [b"k", b"v"]
    redis.script_flush()
    assert all_at_once([lambda: script(["k"], ["1"]), lambda: pipeline.ask("ECHO", "x")]) == [[b"k", b"1"], b"x"]
    redis.script_flush()
    cut(redis, pipeline)
    with pytest.raises((RedisError, OSError)):
        script(["k"], ["lost"])
    assert script(["k"], ["2"]) == [b"k", b"2"]


@pytest.mark.parametrize("most", [1, 64])
def test_a_broken_connection_is_an_error_for_all_who_wait_and_mended_for_the_next(redis: Redis, most: int):
    pipeline = Pipeline(redis, most)

    def ask() -> str:
        try:
            return str(pipeline.ask("BLPOP", "empty", "0"))
        except RedisConnectionError:
            return "broken"

    pipeline.ask("PING")
    waiting = [gevent.spawn(ask) for _ in range(3)]
    gevent.sleep(0.1)
    redis.client_kill_filter(_type="normal", skipme=True)
    assert [one.get(timeout=5) for one in waiting] == ["broken"] * 3
    assert pipeline.ask("PING") == b"PONG"
