"""Rows in which clients leave, or read slowly."""

import asyncio
import time
from collections.abc import Callable

from bench.farm import KEY, Bench, farm
from bench.faults.common import Scale, load, meanwhile, nothing_left, sound
from bench.load import Load
from bench.measured import Measured, at_most, exactly, told
from bench.outcome import LEFT, Record, Result


def leavers(scale: Scale) -> list[Measured]:
    """Half of the clients leave at a random moment: hardly any worker time is spent on them, nothing is left behind."""
    row = "leavers"
    with farm(scale.accounts, *scale.pace) as bench:
        bench.upstream.ask("ended")
        result = load(bench, scale, leave=0.5, clients=scale.clients * 3 // 2)
        left = [one for one in result.records if one.outcome == LEFT]
        time.sleep(2)
        spent = time_after(left, result, bench)
        return [
            *sound(row, bench, result, LEFT),
            at_most(row, "share of the workers' time spent on leavers", spent / scale.accounts / scale.seconds, 0.05),
            *nothing_left(row, bench, scale.accounts),
            told(row, "clients that left", len(left)),
            told(row, "answers", len(result.ends)),
        ]


def time_after(left: list[Record], result: Result, bench: Bench) -> float:
    """Seconds that accounts were held for clients after these had left."""
    at = {one.text: result.started + one.ended for one in left}
    return float(sum(max(0.0, when - at[text]) for text, when in bench.upstream.ask("ended") if text in at))


def slow_readers(scale: Scale) -> list[Measured]:
    """As many clients as accounts read 1 KB/s: they neither slow the others nor grow the front without bound."""
    row = "slow readers"
    with farm(scale.accounts, *scale.pace) as bench:
        before = bench.memory()["front"]
        slow = SlowReaders(bench, scale.accounts)
        with meanwhile(slow.read_for(scale.seconds)):
            result = load(bench, scale)
        grown = bench.memory()["front"] - before
        return [
            *sound(row, bench, result),
            exactly(row, "slow readers that were cut off", slow.cut_off),
            at_most(row, "MB that the front grew, per slow reader", grown / scale.accounts, 1.3),
            told(row, "answers of the others", len(result.ends)),
        ]


class SlowReaders:
    """Clients that take a kilobyte a second of a long answer."""

    def __init__(self, bench: Bench, count: int) -> None:
        self._bench = bench
        self._count = count
        self.cut_off = 0

    def read_for(self, seconds: float) -> Callable[[], None]:
        """Reads so long."""
        return lambda: asyncio.run(self._all(seconds))

    async def _all(self, seconds: float) -> None:
        await asyncio.gather(*(self._one(number, seconds) for number in range(self._count)))

    async def _one(self, number: int, seconds: float) -> None:
        text = f"slow {number} " + "word " * 4000
        request = Load("127.0.0.1", self._bench.port, KEY, 1, seconds, stream=True).request(text)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._bench.port, limit=2048)
        writer.write(request)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(1)
            if not await reader.read(1024):
                self.cut_off += 1
                return
        writer.transport.abort()
