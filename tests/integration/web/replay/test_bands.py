"""Interactive requests never wait behind the same request in the batch band, which uses whatever they have."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis

from shared.api_keys.store import ApiKeys
from shared.protocol.messages import Frame, FrameKind, Head
from shared.settings.schema import PoolSettings
from tests.integration.web.replay.conftest import ANSWER, WHOLE, SharingFront, settle
from tests.waiting import eventually

CHAT, BATCH = "rq:queue:chat:default", "rq:queue:batch:default"


class Bands:
    """Two fronts, and a key in each band: what one of them asks, the other may get."""

    def __init__(self, fronts: list[SharingFront], redis: Redis) -> None:
        self.fronts = fronts
        self._redis = redis
        self.secrets = {"interactive": ApiKeys(redis).create("i")[0]}
        self.secrets["batch"] = ApiKeys(redis).create("b", band="batch")[0]

    def ask(self, band: str, front: int = 0) -> Any:
        """Sends a request, and waits until its answer is on its way."""
        callers = self.count_callers()
        asked = self.fronts[front].ask(secret=self.secrets[band])
        eventually(lambda: self.count_callers() == callers + 1)
        return asked

    def count_callers(self) -> int:
        return sum(len(front.services.runs.followers) for front in self.fronts)

    def count_waiting(self) -> list[int]:
        return [self._redis.llen(CHAT), self._redis.llen(BATCH)]

    def serve(self, queue: str, front: int = 0) -> None:
        request_id = eventually(lambda: self._redis.lpop(queue)).decode()
        head = Head(200, {"content-type": "application/json"}, 1, 0, 0).encode()
        frames = [Frame(FrameKind.HEAD, 0, head), Frame(FrameKind.DATA, 1, WHOLE), Frame(FrameKind.END, 2, b"")]
        channel = self.fronts[front].services.hub.channel(request_id)
        self._redis.publish(channel, b"".join(frame.encode() for frame in frames))

    def read(self, asked: Any) -> str:
        response = self.fronts[0].answer(asked)
        assert response.json["choices"] == ANSWER["choices"]
        return str(response.headers["x-farm-cache"])


@pytest.fixture(scope="module")
def both(start_front: Callable[..., SharingFront]) -> list[SharingFront]:
    return [start_front(pools=(PoolSettings(cache_ttl=100, cache_scope="pool"),)) for _ in range(2)]


@pytest.fixture
def bands(both: list[SharingFront], redis: Redis) -> Iterator[Bands]:
    yield Bands(both, redis)
    for front in both:
        settle(front)
    assert both[0].waiting == 0


@pytest.mark.parametrize("front", [0, 1], ids=["same front", "other front"])
def test_interactive_request_does_not_join_one_of_the_batch_band(bands: Bands, front: int):
    batch = bands.ask("batch")
    interactive = bands.ask("interactive", front)
    eventually(lambda: bands.count_waiting() == [1, 1])
    bands.serve(CHAT, front)
    assert bands.read(interactive) == "miss"
    bands.serve(BATCH)
    assert bands.read(batch) == "miss"


@pytest.mark.parametrize("front", [0, 1], ids=["same front", "other front"])
def test_request_of_the_batch_band_joins_any_other(bands: Bands, front: int):
    batch = [bands.ask("batch"), bands.ask("batch", front)]
    bands.serve(BATCH)
    assert sorted(map(bands.read, batch)) == ["joined", "miss"]
    settle(bands.fronts[0])


@pytest.mark.parametrize("front", [0, 1], ids=["same front", "other front"])
def test_request_of_the_batch_band_joins_an_interactive_one(bands: Bands, front: int):
    asked = [bands.ask("interactive"), bands.ask("batch", front), bands.ask("interactive", front)]
    assert bands.count_waiting() == [1, 0]
    bands.serve(CHAT)
    assert sorted(map(bands.read, asked)) == ["joined", "joined", "miss"]


@pytest.mark.parametrize(("first", "second"), [("batch", "interactive"), ("interactive", "batch")])
def test_kept_answers_are_for_both_bands(bands: Bands, first: str, second: str):
    asked = bands.ask(first)
    bands.serve(BATCH if first == "batch" else CHAT)
    assert bands.read(asked) == "miss"
    settle(bands.fronts[0])
    assert bands.read(bands.fronts[0].ask(secret=bands.secrets[second])) == "hit"
