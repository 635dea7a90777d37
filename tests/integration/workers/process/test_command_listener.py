"""RQ's commands reach the workers of a process over one subscription."""

from types import SimpleNamespace

import gevent
import pytest
from redis import Redis
from rq.command import send_command

from tests.waiting import eventually
from workers.process.command_listener import CommandListener


class FakeWorker:
    """What the listener knows of a worker."""

    def __init__(self, name: str, job_id: str = "") -> None:
        self.name = name
        self.pubsub_channel_name = f"rq:pubsub:{name}"
        self.job_id = job_id
        self.runner = self
        self.seen: list[str] = []
        self.log = SimpleNamespace(debug=print, info=print, warning=print)
        self._stopped_job_id = ""
        self.horse_pid = 0

    def is_running(self, job_id: str) -> bool:
        return job_id == self.job_id

    def get_current_job_id(self) -> str:
        return self.job_id

    def stop(self) -> None:
        self.seen.append("stop")

    def cancel_before_start(self, job_id: str) -> None:
        self.seen.append(f"early {job_id}")

    def kill_horse(self) -> None:
        self.seen.append(f"kill {self._stopped_job_id}")


@pytest.fixture
def control(redis: Redis) -> CommandListener:
    made = CommandListener(redis, print)
    greenlet = gevent.spawn(made.run)
    yield made
    greenlet.kill()


def listening(redis: Redis, *workers: FakeWorker) -> bool:
    return all(count for _, count in redis.pubsub_numsub(*(worker.pubsub_channel_name for worker in workers)))


def subscribers(redis: Redis) -> set[str]:
    """The ids of the connections that listen."""
    return {client["id"] for client in redis.client_list(_type="pubsub")}


def test_a_stop_command_ends_the_job_that_runs(redis: Redis, control: CommandListener):
    one, other = FakeWorker("p.1", "req_1"), FakeWorker("p.2", "req_2")
    for worker in (one, other):
        control.add(worker)  # type: ignore[arg-type]
    eventually(lambda: listening(redis, one, other))
    send_command(redis, "p.1", "stop-job", job_id="req_1")
    eventually(lambda: one.seen == ["kill req_1"])
    assert other.seen == []


def test_a_stop_that_comes_before_the_job_has_begun_is_kept_for_it(redis: Redis, control: CommandListener):
    worker = FakeWorker("p.1")
    control.add(worker)  # type: ignore[arg-type]
    eventually(lambda: listening(redis, worker))
    send_command(redis, "p.1", "stop-job", job_id="req_9")
    eventually(lambda: worker.seen == ["early req_9"])


def test_shutdown_stops_that_worker_and_nonsense_stops_nothing(redis: Redis, control: CommandListener):
    worker = FakeWorker("p.1")
    control.add(worker)  # type: ignore[arg-type]
    eventually(lambda: listening(redis, worker))
    redis.publish("rq:pubsub:p.1", "not json")
    redis.publish("rq:pubsub:p.1", '{"no": "command"}')
    send_command(redis, "p.1", "shutdown")
    eventually(lambda: worker.seen == ["stop"])


def test_a_worker_that_has_gone_is_listened_for_no_more(redis: Redis, control: CommandListener):
    worker, other = FakeWorker("p.1"), FakeWorker("p.2")
    for one in (worker, other):
        control.add(one)  # type: ignore[arg-type]
    eventually(lambda: listening(redis, worker, other))
    control.remove(worker)  # type: ignore[arg-type]
    eventually(lambda: not listening(redis, worker))


def test_a_lost_connection_is_made_again(redis: Redis, control: CommandListener):
    worker = FakeWorker("p.1", "req_1")
    control.add(worker)  # type: ignore[arg-type]
    eventually(lambda: listening(redis, worker))
    lost = subscribers(redis)
    redis.client_kill_filter(_type="pubsub", skipme=True)
    # Not a look at the gap: the subscription is back within a millisecond or two.
    eventually(lambda: listening(redis, worker) and not subscribers(redis) & lost)
    send_command(redis, "p.1", "stop-job", job_id="req_1")
    eventually(lambda: worker.seen == ["kill req_1"])
