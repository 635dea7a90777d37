"""The size of a row, and its load."""

import asyncio
from dataclasses import dataclass

from bench.farm import API_KEY, MeasuredFarm
from bench.load import Load, run_load
from bench.outcome import LoadResult

#: Start of a load that is left out of rates.
WARM_UP_SECONDS = 3.0


@dataclass(frozen=True)
class FaultScale:
    """How large a row is run."""

    accounts: int = 100
    clients: int = 200
    #: Length of the load.
    seconds: float = 30.0
    #: Seconds that one stream takes.
    stream: float = 2.0
    #: Whether the upstream is reached over TLS.
    https: bool = False
    #: Text events per stream.
    pieces: int = 50
    #: Decides what is broken, and when.
    seed: int = 1
    #: Length of the soak in seconds.
    soak: float = 600.0
    #: How long a process is frozen, in lease lifetimes.
    frozen: float = 3.0
    #: How often the primary of Redis is killed.
    failovers: int = 10
    #: Seconds for which Redis is silent. The default is all that the farm promises to tolerate.
    silence: float = 10.0
    #: Lines of a batch.
    lines: int = 5000
    #: Requests whose connection is cut, once at least.
    cuts: int = 100

    @property
    def pace(self) -> tuple[str, ...]:
        """The simulator's arguments for such streams."""
        pace = ("--chunks", str(self.pieces), "--chunk-delay", f"{self.stream / self.pieces:g}")
        return (*pace, "--https") if self.https else pace


#: For a quick run on any machine, and for the test suite: far enough from each bound for a machine that stalls.
SMALL = FaultScale(
    accounts=16,
    clients=32,
    seconds=9,
    stream=0.8,
    pieces=20,
    soak=45,
    frozen=1.4,
    silence=6,
    failovers=1,
    lines=400,
    cuts=20,
)


def run_streams(
    farm: MeasuredFarm, scale: FaultScale, *, leave: float = 0.0, clients: int = 0, seconds: float = 0.0
) -> LoadResult:
    """Loads the farm with streams; 0 clients or seconds means those of the scale."""
    load = Load(
        "127.0.0.1",
        farm.port,
        API_KEY,
        clients or scale.clients,
        seconds or scale.seconds,
        stream=True,
        leave=leave,
        seed=scale.seed,
        timeout=60 + 2 * scale.stream * (clients or scale.clients) / scale.accounts,
    )
    return asyncio.run(run_load(load))


def busy_share(
    result: LoadResult,
    scale: FaultScale,
    accounts: float,
    since: float = WARM_UP_SECONDS,
    until: float | None = None,
) -> float:
    """Share of the accounts' time spent on correct responses, from `since` to `until` (None: the end of the load)."""
    end = result.seconds if until is None else until
    return result.busy_seconds(scale.stream, since, end) / (end - since) / accounts
