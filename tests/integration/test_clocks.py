"""The clocks of hosts may be a minute apart: what one writes and another compares is in Redis's time."""

import ast
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from shared import clock, keys
from shared.protocol.messages import FrameKind, Head
from shared.settings.schema import Settings
from tests.environment import ROOT
from tests.integration.harness import WorkerHarness, collect_frames
from workers.process.membership import Membership

read_time = time.time


class Host:
    """A host whose clock is wrong by so many seconds. Its processes have compared their clock with Redis's."""

    def __init__(self, skew: float, redis: Redis) -> None:
        self.skew = skew
        self.offset = 0.0
        with self.active():
            clock.compare_with(redis)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Runs the block on this host."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time", lambda: read_time() + self.skew)
            patch.setattr(clock, "_offset", self.offset)
            yield
            self.offset = clock.now() - time.time()


@pytest.mark.parametrize("skew", [0.0, 0.2, 60.0, -60.0])
def test_hosts_agree_on_the_time(redis: Redis, skew: float):
    with Host(skew, redis).active():
        assert clock.now() == pytest.approx(read_time(), abs=2)


def test_slow_reply_of_redis_does_not_change_the_clock(redis: Redis):
    with Host(0.0, redis).active():
        clock.compare((int(read_time()) + 60, 0), asked_at=read_time() - 30)
        assert clock.now() == pytest.approx(read_time(), abs=2)


def test_clock_that_is_put_right_is_followed(redis: Redis):
    host = Host(60.0, redis)
    host.skew = 0.0
    with host.active():
        clock.compare_with(redis)
        assert clock.now() == pytest.approx(read_time(), abs=2)


def test_worker_processes_on_hosts_a_minute_apart_see_each_other(redis: Redis):
    hosts = {name: Host(skew, redis) for name, skew in (("early", -60.0), ("right", 0.0), ("late", 60.0))}
    members = {name: Membership(redis, name, Settings()) for name in hosts}
    for _ in range(2):
        for name, host in hosts.items():
            with host.active():
                members[name].refresh([])
    assert {name.decode() for name in redis.zrange(keys.PROCESSES, 0, -1)} == set(hosts)


@pytest.mark.parametrize("skew", [60.0, -60.0])
def test_request_of_a_front_a_minute_off_has_its_whole_time(
    redis: Redis, start_harness: Callable[..., WorkerHarness], skew: float
):
    harness = start_harness()
    with Host(skew, redis).active():
        now = clock.now()
    frames = collect_frames(harness.enqueue(enqueued_at=now, deadline=now + 30))
    assert frames[-1].kind is FrameKind.END
    assert Head.decode(frames[0].payload).queue_wait_ms < 30_000


#: Packages whose times other hosts read, apart from those that ask for Redis's time.
SHARED_TIME = ("workers", "web/request", "web/reply", "web/admission.py", "shared/protocol", "shared/credentials")
ASK_REDIS = {
    *(ROOT / "workers/process/membership.py", ROOT / "workers/refresher/process.py"),
    ROOT / "web/reply/hub.py",
}


@pytest.mark.parametrize("package", SHARED_TIME)
def test_no_time_that_another_host_may_read_is_from_this_hosts_clock(package: str):
    path = ROOT / package
    files: list[Path] = [path] if path.is_file() else list(path.rglob("*.py"))
    for file in set(files) - ASK_REDIS:
        for node in ast.walk(ast.parse(file.read_text())):
            assert not (isinstance(node, ast.Attribute) and ast.unparse(node) == "time.time"), f"{file}:{node.lineno}"
