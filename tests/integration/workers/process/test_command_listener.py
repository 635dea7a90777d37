"""RQ's commands reach all workers of a process over one subscription."""

from collections.abc import Iterator
from types import SimpleNamespace

import gevent
import pytest
from redis import Redis
from rq.command import send_command

from tests.waiting import eventually
from workers.process.command_listener import CommandListener


class FakeWorker:
    """A worker as the command listener sees it, which records what is done to it."""

    def __init__(self, name: str, job_id: str = "") -> None:
        self.name = name
        self.pubsub_channel_name = f"rq:pubsub:{name}"
        self.job_id = job_id
        self.runner = self
        self.calls: list[str] = []
        self.log = SimpleNamespace(debug=print, info=print, warning=print)
        self._stopped_job_id = ""
        self.horse_pid = 0

    def is_running(self, job_id: str) -> bool:
        return job_id == self.job_id

    def get_current_job_id(self) -> str:
        return self.job_id

    def stop(self) -> None:
        self.calls.append("stop")

    def cancel_before_start(self, job_id: str) -> None:
        self.calls.append(f"early {job_id}")

    def kill_horse(self) -> None:
        self.calls.append(f"kill {self._stopped_job_id}")


@pytest.fixture
def listener(redis: Redis) -> Iterator[CommandListener]:
    listener = CommandListener(redis, print)
    greenlet = gevent.spawn(listener.run)
    yield listener
    greenlet.kill()


def is_subscribed(redis: Redis, *workers: FakeWorker) -> bool:
    return all(count for _, count in redis.pubsub_numsub(*(worker.pubsub_channel_name for worker in workers)))


def subscribers(redis: Redis) -> set[str]:
    """The ids of the connections that have a subscription."""
    return {client["id"] for client in redis.client_list(_type="pubsub")}


def test_stop_command_stops_the_running_job(redis: Redis, listener: CommandListener):
    worker, other = FakeWorker("p.1", "req_1"), FakeWorker("p.2", "req_2")
    for target in (worker, other):
        listener.add(target)  # type: ignore[arg-type]
    eventually(lambda: is_subscribed(redis, worker, other))
    send_command(redis, "p.1", "stop-job", job_id="req_1")
    eventually(lambda: worker.calls == ["kill req_1"])
    assert other.calls == []


def test_stop_command_before_the_job_starts_is_kept_for_it(redis: Redis, listener: CommandListener):
    worker = FakeWorker("p.1")
    listener.add(worker)  # type: ignore[arg-type]
    eventually(lambda: is_subscribed(redis, worker))
    send_command(redis, "p.1", "stop-job", job_id="req_9")
    eventually(lambda: worker.calls == ["early req_9"])


def test_shutdown_stops_the_worker_and_invalid_messages_are_ignored(redis: Redis, listener: CommandListener):
    worker = FakeWorker("p.1")
    listener.add(worker)  # type: ignore[arg-type]
    eventually(lambda: is_subscribed(redis, worker))
    redis.publish("rq:pubsub:p.1", "not json")
    redis.publish("rq:pubsub:p.1", '{"no": "command"}')
    send_command(redis, "p.1", "shutdown")
    eventually(lambda: worker.calls == ["stop"])


def test_removed_worker_is_unsubscribed(redis: Redis, listener: CommandListener):
    worker, other = FakeWorker("p.1"), FakeWorker("p.2")
    for target in (worker, other):
        listener.add(target)  # type: ignore[arg-type]
    eventually(lambda: is_subscribed(redis, worker, other))
    listener.remove(worker)  # type: ignore[arg-type]
    eventually(lambda: not is_subscribed(redis, worker))


def test_listener_reconnects_and_subscribes_again(redis: Redis, listener: CommandListener):
    worker = FakeWorker("p.1", "req_1")
    listener.add(worker)  # type: ignore[arg-type]
    eventually(lambda: is_subscribed(redis, worker))
    lost = subscribers(redis)
    redis.client_kill_filter(_type="pubsub", skipme=True)
    # The gap itself is too short to be seen: the subscription is back within a millisecond or two.
    eventually(lambda: is_subscribed(redis, worker) and not subscribers(redis) & lost)
    send_command(redis, "p.1", "stop-job", job_id="req_1")
    eventually(lambda: worker.calls == ["kill req_1"])
