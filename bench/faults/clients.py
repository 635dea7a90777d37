"""Rows in which clients leave early, lose their connection or read slowly."""

import asyncio
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bench.cut_client import CutClient, NotWhole
from bench.farm import API_KEY, MeasuredFarm, run_farm
from bench.faults.injection import in_background
from bench.faults.invariants import check_nothing_left, check_responses
from bench.faults.scale import FaultScale, run_streams
from bench.load import Load
from bench.measurement import Measurement, at_most, exactly, unbounded
from bench.outcome import LEFT, LoadResult, RequestRecord
from simulator.responses import translate

#: Clients at a time whose connections are cut.
CUT_CLIENTS = 16


def measure_leavers(scale: FaultScale) -> list[Measurement]:
    """Half of the clients leave at a random moment: almost no worker time is spent on them, and nothing remains."""
    row = "leavers"
    with run_farm(scale.accounts, *scale.pace) as farm:
        # The first read starts the recording.
        farm.upstream.control("ended")
        result = run_streams(farm, scale, leave=0.5, clients=scale.clients * 3 // 2)
        left = [record for record in result.records if record.outcome == LEFT]
        time.sleep(2)
        wasted = sum_wasted_seconds(left, result, farm)
        return [
            *check_responses(row, farm, result, LEFT),
            at_most(row, "share of the workers' time spent on leavers", wasted / scale.accounts / scale.seconds, 0.05),
            *check_nothing_left(row, farm, scale.accounts),
            unbounded(row, "clients that left", len(left)),
            unbounded(row, "answers", len(result.end_times)),
        ]


def sum_wasted_seconds(left: list[RequestRecord], result: LoadResult, farm: MeasuredFarm) -> float:
    """Seconds that accounts stayed busy after their clients had left."""
    left_at = {record.text: result.started_at + record.ended for record in left}
    ended = farm.upstream.control("ended")
    return float(sum(max(0.0, ended_at - left_at[text]) for text, ended_at in ended if text in left_at))


def measure_cut_clients(scale: FaultScale) -> list[Measurement]:
    """Connections are cut at random, and retried by idempotency key: each answer is whole, and run once."""
    row = "cut clients"
    with run_farm(scale.accounts, *scale.pace, FARM_WORKER_PROCESSES="2", WEB_CONCURRENCY="2") as farm:
        client, started = CutClient(farm.port, API_KEY, random.Random(scale.seed)), time.monotonic()
        texts = [f"paragraph {number} " + "of a book " * scale.pieces for number in range(scale.cuts)]

        def is_whole(number: int) -> bool:
            try:
                return client.ask(texts[number], f"cut-{number}") == translate(texts[number])
            except NotWhole:
                return False

        with ThreadPoolExecutor(min(CUT_CLIENTS, scale.clients)) as pool:
            whole = sum(pool.map(is_whole, range(scale.cuts)))
        return [
            exactly(row, "answers that are not whole", len(texts) - whole),
            exactly(row, "requests at the upstream", farm.upstream.read_counters()["served"], len(texts)),
            unbounded(row, "connections that were cut", client.cuts),
            unbounded(row, "seconds", round(time.monotonic() - started, 1)),
        ]


def measure_slow_readers(scale: FaultScale) -> list[Measurement]:
    """As many clients as accounts read 1 KB/s: they do not slow the others, and the front's memory stays bounded."""
    row = "slow readers"
    with run_farm(scale.accounts, *scale.pace) as farm:
        before = farm.measure_memory()["front"]
        slow = SlowReaders(farm, scale.accounts)
        with in_background(slow.read_for(scale.seconds)):
            result = run_streams(farm, scale)
        growth = farm.measure_memory()["front"] - before
        return [
            *check_responses(row, farm, result),
            exactly(row, "slow readers that were cut off", slow.cut_off),
            at_most(row, "MB that the front grew, per slow reader", growth / scale.accounts, 1.3),
            unbounded(row, "answers of the others", len(result.end_times)),
        ]


class SlowReaders:
    """Clients that read one kilobyte per second of a long response."""

    def __init__(self, farm: MeasuredFarm, count: int) -> None:
        self._farm = farm
        self._count = count
        #: Clients whose connection the farm closed.
        self.cut_off = 0

    def read_for(self, seconds: float) -> Callable[[], None]:
        """A function that reads for so many seconds."""
        return lambda: asyncio.run(self._read_all(seconds))

    async def _read_all(self, seconds: float) -> None:
        await asyncio.gather(*(self._read(number, seconds) for number in range(self._count)))

    async def _read(self, number: int, seconds: float) -> None:
        text = f"slow {number} " + "word " * 4000
        request = Load("127.0.0.1", self._farm.port, API_KEY, 1, seconds, stream=True).encode_request(text)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._farm.port, limit=2048)
        writer.write(request)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            await asyncio.sleep(1)
            if not await reader.read(1024):
                self.cut_off += 1
                return
        writer.transport.abort()
