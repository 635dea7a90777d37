"""Commands of many greenlets share one connection, and each greenlet gets its own reply."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from shared.redis_connection.auto_pipeline import MAX_SMALL_BYTES, AutoPipeline
from shared.redis_connection.in_flight_limit import FIRST_COST_SECONDS, HEADROOM, WINDOW_SECONDS, InFlightLimit
from shared.redis_connection.multiplexer import Batch
from tests import internals
from tests.own_redis import count_sends
from tests.waiting import eventually

ECHO = "return {KEYS[1], ARGV[1]}"


def run_concurrently(works: list[Callable[[], Any]]) -> list[Any]:
    greenlets = [gevent.spawn(work) for work in works]
    return [greenlet.get(timeout=30) for greenlet in greenlets]


def disconnect(redis: Redis, pipeline: AutoPipeline) -> None:
    redis.client_kill_filter(_id=pipeline.execute("CLIENT", "ID"))


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    (tmp_path / "echo.lua").write_text(ECHO)
    return tmp_path / "echo.lua"


def test_each_greenlet_gets_the_reply_to_its_own_command(redis: Redis):
    pipeline = AutoPipeline(redis)
    works = [lambda i=i: pipeline.execute("ECHO", str(i)) for i in range(200)]
    assert run_concurrently(works) == [str(i).encode() for i in range(200)]


def test_concurrent_commands_are_sent_together(own_redis: Redis):
    pipeline = AutoPipeline(own_redis)
    pipeline.execute("PING")
    with count_sends(own_redis) as count:
        run_concurrently([lambda: pipeline.execute("PING")] * 50)
    assert count.sends == 1


def test_limited_pipeline_has_one_command_in_flight(own_redis: Redis):
    pipeline = AutoPipeline(own_redis, eager=True, limit=InFlightLimit(1))
    pipeline.execute("PING")
    with count_sends(own_redis) as count:
        assert run_concurrently([lambda: pipeline.execute("PING")] * 50) == [b"PONG"] * 50
    assert count.sends == 50


def test_distant_redis_gets_more_commands_at_a_time(redis: Redis):
    limit = InFlightLimit()
    pipeline = AutoPipeline(redis, eager=True, limit=limit)
    pipeline.execute("PING")
    for windows in (2, 4):
        limit.record(0.005, time.monotonic() + windows * WINDOW_SECONDS)
    redis.client_pause(300)
    greenlets = [gevent.spawn(pipeline.execute, "ECHO", str(i)) for i in range(5)]
    gevent.sleep(0.05)
    assert internals.count_in_flight(pipeline) == 5
    assert [greenlet.get(timeout=30) for greenlet in greenlets] == [b"0", b"1", b"2", b"3", b"4"]


def test_piggyback_batch_waits_for_no_reply_of_a_distant_redis(redis: Redis):
    limit, waiting = InFlightLimit(highest=3), list[Batch]()
    piggyback = Batch([("RPUSH", "order", "rode")], is_piggyback=True)
    pipeline = AutoPipeline(redis, eager=True, limit=limit, piggyback=lambda: waiting.pop() if waiting else None)
    pipeline.execute("PING")
    for windows in (2, 4):
        limit.record(0.005, time.monotonic() + windows * WINDOW_SECONDS)
    redis.client_pause(300)
    greenlets = [gevent.spawn(pipeline.execute, "RPUSH", "order", str(i)) for i in range(5)]
    gevent.sleep(0.05)
    assert internals.count_in_flight(pipeline) == 3
    waiting.append(piggyback)
    pipeline.multiplexer.flush()
    assert internals.count_in_flight(pipeline) == 4
    assert [greenlet.get(timeout=30) for greenlet in greenlets] == [1, 2, 3, 5, 6]
    assert redis.lrange("order", 0, -1) == [b"0", b"1", b"2", b"rode", b"3", b"4"]


def test_distance_is_measured_anew_on_a_new_connection(redis: Redis):
    limit = InFlightLimit()
    pipeline = AutoPipeline(redis, eager=True, limit=limit)
    pipeline.execute("PING")
    disconnect(redis, pipeline)
    with pytest.raises(RedisError):
        pipeline.execute("PING")
    redis.client_pause(60_000, all=False)
    writing = gevent.spawn(pipeline.execute, "RPUSH", "list", "value")
    eventually(lambda: internals.count_in_flight(pipeline) == 1)
    gevent.sleep(0.1)
    redis.client_unpause()
    assert writing.get(timeout=30) == 1
    assert limit.value >= HEADROOM * 0.1 / FIRST_COST_SECONDS


def test_large_command_does_not_hold_up_small_ones(redis: Redis, echo: Path):
    pipeline = AutoPipeline(redis, eager=True)
    script = pipeline.register_script(echo)
    small, large = pipeline.execute("CLIENT", "ID"), b"x" * (MAX_SMALL_BYTES + 1)
    before = {int(client["id"]) for client in redis.client_list()}
    assert script(["k"], [large]) == [b"k", large]
    redis.script_flush()
    assert script(["k"], [large]) == [b"k", large]
    (own,) = {int(client["id"]) for client in redis.client_list()} - before
    assert own != small
    assert pipeline.execute("CLIENT", "ID") == small


def test_commands_do_not_wait_for_replies_to_earlier_ones(redis: Redis):
    pipeline = AutoPipeline(redis, eager=True)
    pipeline.execute("PING")
    slow = gevent.spawn(pipeline.execute, "BLPOP", "empty", "0.5")
    gevent.sleep(0)
    redis.client_pause(300)
    greenlets = [gevent.spawn(pipeline.execute, "ECHO", str(i)) for i in range(5)]
    gevent.sleep(0.05)
    assert internals.count_in_flight(pipeline) == 6
    assert [greenlet.get(timeout=30) for greenlet in greenlets] == [b"0", b"1", b"2", b"3", b"4"]
    assert slow.get() is None


def test_error_reply_reaches_only_its_own_command(redis: Redis):
    pipeline = AutoPipeline(redis)
    redis.set("text", "no list")

    def push() -> str:
        with pytest.raises(ResponseError):
            pipeline.execute("LPUSH", "text", "1")
        return "refused"

    assert run_concurrently([lambda: pipeline.execute("PING"), push, lambda: pipeline.execute("GET", "text")]) == [
        b"PONG",
        "refused",
        b"no list",
    ]


def test_script_is_reloaded_after_a_reconnect_and_after_a_flush(redis: Redis, echo: Path):
    pipeline = AutoPipeline(redis)
    script = pipeline.register_script(echo)
    assert script(["k"], ["v"]) == [b"k", b"v"]
    redis.script_flush()
    assert run_concurrently([lambda: script(["k"], ["1"]), lambda: pipeline.execute("ECHO", "x")]) == [
        [b"k", b"1"],
        b"x",
    ]
    redis.script_flush()
    disconnect(redis, pipeline)
    with pytest.raises(RedisError):
        script(["k"], ["lost"])
    assert script(["k"], ["2"]) == [b"k", b"2"]


@pytest.mark.parametrize("options", [{}, {"eager": True}, {"eager": True, "limit": InFlightLimit(1)}])
def test_broken_connection_fails_pending_commands_and_is_reopened(redis: Redis, options: dict[str, Any]):
    pipeline = AutoPipeline(redis, **options)

    def pop() -> str:
        try:
            return str(pipeline.execute("BLPOP", "empty", "0"))
        except RedisConnectionError:
            return "broken"

    pipeline.execute("PING")
    greenlets = [gevent.spawn(pop) for _ in range(3)]
    gevent.sleep(0.1)
    redis.client_kill_filter(_type="normal", skipme=True)
    assert [greenlet.get(timeout=30) for greenlet in greenlets] == ["broken"] * 3
    assert pipeline.execute("PING") == b"PONG"


def test_piggyback_batch_is_sent_ahead_and_not_counted(own_redis: Redis):
    piggyback = Batch([("RPUSH", "order", "rode")] * 2 + [("LPUSH", "order")], is_piggyback=True)
    waiting: list[Batch] = []
    pipeline = AutoPipeline(
        own_redis, eager=True, limit=InFlightLimit(1), piggyback=lambda: waiting.pop() if waiting else None
    )
    pipeline.execute("PING")
    waiting.append(piggyback)
    with count_sends(own_redis) as count:
        assert pipeline.execute("RPUSH", "order", "commanded") == 3
    assert count.sends == 1
    assert own_redis.lrange("order", 0, -1) == [b"rode", b"rode", b"commanded"]
    *lengths, refused = piggyback.replies.get(timeout=30)
    assert lengths == [1, 2]
    assert isinstance(refused, ResponseError)


def test_command_that_cannot_be_encoded_fails_alone(redis: Redis):
    pipeline = AutoPipeline(redis)

    def send_invalid() -> str:
        with pytest.raises(TypeError):
            pipeline.execute("SET", "name", object())
        return "wrong"

    assert run_concurrently([lambda: pipeline.execute("PING"), send_invalid]) == [b"PONG", "wrong"]


def test_registering_a_known_script_keeps_the_connection(redis: Redis, echo: Path):
    pipeline = AutoPipeline(redis)
    first = pipeline.register_script(echo)
    connection = pipeline.execute("CLIENT", "ID")
    assert pipeline.register_script(echo)(["key"], ["value"]) == first(["key"], ["value"]) == [b"key", b"value"]
    assert pipeline.execute("CLIENT", "ID") == connection
