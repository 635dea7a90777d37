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

from shared.redis_connection.auto_pipeline import AutoPipeline
from shared.redis_connection.multiplexer import Batch
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


def cut(redis: Redis, pipeline: AutoPipeline) -> None:
    redis.client_kill_filter(_id=pipeline.execute("CLIENT", "ID"))


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    (tmp_path / "echo.lua").write_text(ECHO)
    return tmp_path / "echo.lua"


def test_everybody_gets_the_answer_to_his_own_question(redis: Redis):
    pipeline = AutoPipeline(redis)
    works = [lambda i=i: pipeline.execute("ECHO", str(i)) for i in range(200)]
    assert all_at_once(works) == [str(i).encode() for i in range(200)]


def test_what_is_asked_together_travels_together(redis: Redis):
    pipeline = AutoPipeline(redis)
    pipeline.execute("PING")
    before = reads_at_rest(redis)
    all_at_once([lambda: pipeline.execute("PING")] * 50)
    assert reads(redis) - before == 2


def test_of_one_that_is_paced_one_question_at_a_time_is_on_its_way(redis: Redis):
    pipeline = AutoPipeline(redis, eager=True, max_in_flight=1)
    pipeline.execute("PING")
    before = reads_at_rest(redis)
    assert all_at_once([lambda: pipeline.execute("PING")] * 50) == [b"PONG"] * 50
    assert reads(redis) - before == 51


def test_nobody_waits_for_the_answers_to_others(redis: Redis):
    pipeline = AutoPipeline(redis, eager=True)
    pipeline.execute("PING")
    slow = gevent.spawn(pipeline.execute, "BLPOP", "empty", "0.5")
    gevent.sleep(0)
    redis.client_pause(300)
    asked = [gevent.spawn(pipeline.execute, "ECHO", str(i)) for i in range(5)]
    gevent.sleep(0.05)
    assert len(pipeline.multiplexer._awaiting_reply) == 6
    assert [one.get(timeout=5) for one in asked] == [b"0", b"1", b"2", b"3", b"4"]
    assert slow.get() is None


def test_a_refusal_reaches_only_who_asked_for_it(redis: Redis):
    pipeline = AutoPipeline(redis)
    redis.set("text", "no list")

    def push() -> str:
        with pytest.raises(ResponseError):
            pipeline.execute("LPUSH", "text", "1")
        return "refused"

    assert all_at_once([lambda: pipeline.execute("PING"), push, lambda: pipeline.execute("GET", "text")]) == [
        b"PONG",
        "refused",
        b"no list",
    ]


def test_a_script_is_known_to_each_new_connection_and_after_a_flush(redis: Redis, echo: Path):
    pipeline = AutoPipeline(redis)
    script = pipeline.register_script(echo)
    assert script(["k"], ["v"]) == [b"k", b"v"]
    redis.script_flush()
    assert all_at_once([lambda: script(["k"], ["1"]), lambda: pipeline.execute("ECHO", "x")]) == [[b"k", b"1"], b"x"]
    redis.script_flush()
    cut(redis, pipeline)
    with pytest.raises((RedisError, OSError)):
        script(["k"], ["lost"])
    assert script(["k"], ["2"]) == [b"k", b"2"]


@pytest.mark.parametrize("how", [{}, {"eager": True}, {"eager": True, "max_in_flight": 1}])
def test_a_broken_connection_is_an_error_for_all_who_wait_and_mended_for_the_next(redis: Redis, how: dict[str, Any]):
    pipeline = AutoPipeline(redis, **how)

    def ask() -> str:
        try:
            return str(pipeline.execute("BLPOP", "empty", "0"))
        except RedisConnectionError:
            return "broken"

    pipeline.execute("PING")
    waiting = [gevent.spawn(ask) for _ in range(3)]
    gevent.sleep(0.1)
    redis.client_kill_filter(_type="normal", skipme=True)
    assert [one.get(timeout=5) for one in waiting] == ["broken"] * 3
    assert pipeline.execute("PING") == b"PONG"


def test_company_goes_ahead_of_what_is_asked_next_and_does_not_count(redis: Redis):
    piggyback = Batch([("RPUSH", "order", "rode")] * 2 + [("LPUSH", "order")], is_piggyback=True)
    waiting: list[Batch] = []
    pipeline = AutoPipeline(redis, eager=True, max_in_flight=1, piggyback=lambda: waiting.pop() if waiting else None)
    pipeline.execute("PING")
    before = reads_at_rest(redis)
    waiting.append(piggyback)
    assert pipeline.execute("RPUSH", "order", "asked") == 3
    assert reads(redis) - before == 2
    assert redis.lrange("order", 0, -1) == [b"rode", b"rode", b"asked"]
    *lengths, refused = piggyback.replies.get(timeout=1)
    assert lengths == [1, 2]
    assert isinstance(refused, ResponseError)


def test_a_command_that_can_not_be_sent_is_the_fault_of_who_asked_for_it_alone(redis: Redis):
    pipeline = AutoPipeline(redis)

    def wrong() -> str:
        with pytest.raises(TypeError):
            pipeline.execute("SET", "name", object())
        return "wrong"

    assert all_at_once([lambda: pipeline.execute("PING"), wrong]) == [b"PONG", "wrong"]


def test_a_script_that_is_known_disturbs_nobody(redis: Redis, echo: Path):
    pipeline = AutoPipeline(redis)
    first = pipeline.register_script(echo)
    connection = pipeline.execute("CLIENT", "ID")
    assert pipeline.register_script(echo)(["key"], ["value"]) == first(["key"], ["value"]) == [b"key", b"value"]
    assert pipeline.execute("CLIENT", "ID") == connection
