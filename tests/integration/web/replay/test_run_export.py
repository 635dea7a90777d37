"""An export is read in order, by those who have its key, and never together with another one of the same run."""

from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from shared import keys
from shared.protocol.messages import Frame, FrameKind, Head
from shared.redis_connection.auto_pipeline import AutoPipeline, PipelinedScript
from tests.waiting import eventually
from web.replay import run_export
from web.replay.answers.answer_store import AnswerStore, Share
from web.replay.run_export import ExportReader, RunExchange, RunExport, encode_message
from web.replay.run_registry import RunRegistry
from web.replay.shared_run import KeptBytes, SharedRun

KEY = b"k" * 32
FRAMES = [Frame(FrameKind.HEAD, 0, Head(200).encode()), *(Frame(FrameKind.DATA, n, b"%d" % n) for n in range(1, 4))]


def export(redis: Redis, run: SharedRun) -> None:
    """Exports what the run has by now, in one entry, in place of an earlier export."""
    redis.delete(keys.run_export(run.id, "n"))

    def append(number: int, entry: bytes, fronts: list[str]) -> None:
        if entry:
            redis.rpush(keys.run_export(run.id, "n"), entry)
        exported.leave("there")

    exported = RunExport(run, "n", KEY, append)
    exported.ask("there")
    gevent.spawn(exported.run).get(timeout=30)


@pytest.fixture
def run() -> SharedRun:
    run = SharedRun("r", [Share("n", KEY)], KeptBytes(), drains=True)
    run.put(FRAMES)
    return run


def open_reader(redis: Redis, key: bytes = KEY) -> ExportReader:
    return ExportReader("r", "n", key, AutoPipeline(redis))


def test_export_is_read_once(redis: Redis, run: SharedRun):
    export(redis, run)
    reader = open_reader(redis)
    assert [frame.payload for frame in reader.read()] == [frame.payload for frame in FRAMES]
    assert reader.read() == []


def test_export_that_has_begun_anew_is_not_read_on(redis: Redis, run: SharedRun):
    export(redis, run)
    reader = open_reader(redis)
    reader.read()
    name = keys.run_export("r", "n")
    export(redis, run)
    # The first entry has been read; what follows it is another export's.
    (entry,) = redis.lrange(name, 0, -1)
    redis.rpush(name, entry)
    with pytest.raises(ValueError, match="anew"):
        reader.read()


def test_entries_are_bound_to_key_and_place(redis: Redis, run: SharedRun):
    export(redis, run)
    with pytest.raises(ValueError, match="unsealed"):
        open_reader(redis, b"o" * 32).read()
    (entry,) = redis.lrange(keys.run_export("r", "n"), 0, -1)
    redis.rpush(keys.run_export("r", "n"), entry)
    with pytest.raises(ValueError, match="unsealed"):
        open_reader(redis).read()


def test_export_ends_when_nobody_asks_for_it_any_more(run: SharedRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_export, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(run_export, "MAX_SILENCE_SECONDS", 0.05)
    exported = RunExport(run, "n", KEY, lambda *_: None)
    exported.ask("there")
    gevent.spawn(exported.run).get(timeout=30)
    assert not run.has_followers


def test_silence_of_fronts_does_not_count_while_redis_is_away(run: SharedRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_export, "POLL_SECONDS", 0.01)
    now, tries = [0.0], list[bytes]()
    monkeypatch.setattr(run_export, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def append(_: int, entry: bytes, __: list[str]) -> None:
        tries.append(entry)
        if len(tries) == 1:
            now[0] += 3 * run_export.MAX_SILENCE_SECONDS
            raise RedisConnectionError("away")
        if len(tries) == 5:
            exported.leave("there")

    exported = RunExport(run, "n", KEY, append)
    exported.ask("there")
    gevent.spawn(exported.run).get(timeout=30)
    assert len(tries) == 5, "it goes on for those who ask again once Redis is back"


@pytest.fixture
def exchange(redis: Redis, run: SharedRun, monkeypatch: pytest.MonkeyPatch) -> RunExchange:
    """That of the run's front."""
    monkeypatch.setattr(run_export, "POLL_SECONDS", 0.01)
    registry = RunRegistry(AnswerStore(redis, "here", 0))
    run.is_open = True
    run.opened.set()
    registry.begin(run)
    return RunExchange(redis, "here", registry)


def ask(exchange: RunExchange) -> None:
    exchange.receive(encode_message("export", "r", "there", "n").encode())


@pytest.mark.parametrize("is_done", [False, True])
def test_each_entry_is_added_once_although_redis_does_not_reply(
    redis: Redis, run: SharedRun, exchange: RunExchange, monkeypatch: pytest.MonkeyPatch, is_done: bool
):
    call, failures, added = PipelinedScript.__call__, [1, 2, 3], list[bytes]()

    def fail_first(script: PipelinedScript, **arguments: Any) -> Any:
        _, entry, *_ = arguments["args"]
        if failures and entry:
            failures.pop()
            if is_done:
                call(script, **arguments)
            raise RedisConnectionError("away")
        added.extend([entry] if entry else [])
        return call(script, **arguments)

    monkeypatch.setattr(PipelinedScript, "__call__", fail_first)
    ask(exchange)
    assert not run.exported.is_set()
    reader = open_reader(redis)
    assert len(eventually(reader.read)) == len(FRAMES)
    eventually(lambda: len(added) == 1)
    failures += [4, 5]
    run.put([Frame(FrameKind.DATA, 4, b"4")])
    eventually(lambda: len(added) == 2)
    assert len(eventually(reader.read)) == 1
    exchange.receive(encode_message("leave", "r", "there", "n").encode())
    assert run.exported.wait(30)
    assert redis.llen(keys.run_export("r", "n")) == 2
    # Another one of the same run begins from the beginning.
    ask(exchange)
    run.put([Frame(FrameKind.END, 5)])
    assert run.exported.wait(30)
    assert len(open_reader(redis).read()) == len(FRAMES) + 2


def test_export_of_a_whole_answer_is_not_begun_anew(redis: Redis, run: SharedRun, exchange: RunExchange):
    """Its run goes on until the answer is kept, and a follower that has not read the end yet asks again meanwhile."""
    ask(exchange)
    reader = open_reader(redis)
    eventually(reader.read)
    run.put([Frame(FrameKind.DATA, 4, b"4"), Frame(FrameKind.END, 5)])
    assert run.exported.wait(30)
    ask(exchange)
    assert run.exported.wait(30)
    assert [frame.payload for frame in reader.read()] == [b"4", b""]
    assert len(open_reader(redis).read()) == len(FRAMES) + 2


def test_export_goes_on_for_those_who_have_read_what_redis_has_lost(
    redis: Redis, run: SharedRun, exchange: RunExchange
):
    ask(exchange)
    first, late = open_reader(redis), open_reader(redis)
    eventually(first.read)
    redis.delete(keys.run_export("r", "n"))
    run.put([Frame(FrameKind.DATA, 4, b"4"), Frame(FrameKind.END, 5)])
    assert [frame.payload for frame in eventually(first.read)] == [b"4", b""]
    with pytest.raises(ValueError, match="unsealed"):
        late.read()
    assert run.exported.wait(30)


def test_two_readers_of_one_front_are_both_woken_and_leave_together(redis: Redis):
    exchange = RunExchange(redis, "here", RunRegistry(AnswerStore(redis, "here", 0)))
    readers = [exchange.open_reader("r", "n", KEY) for _ in range(2)]
    exchange.receive(encode_message("more", "r", "there", "n").encode())
    assert all(reader.woken.is_set() for reader in readers)

    with redis.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(keys.front_channel("there"))
        exchange.close_reader(readers[0], "there")
        redis.publish(keys.front_channel("there"), "between")
        exchange.close_reader(readers[1], "there")
        messages = [eventually(lambda: channel.get_message(timeout=0.1))["data"] for _ in range(2)]
    assert messages == [b"between", encode_message("leave", "r", "here", "n").encode()]
