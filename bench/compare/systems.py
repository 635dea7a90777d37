"""The systems that can be measured: the bare upstream, the farm and its peers."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from bench.compare.system import RunningSystem, System
from bench.farm import API_KEY, run_farm_on
from bench.peers import haproxy, litellm, nginx, portkey
from bench.peers.installation import find_version
from bench.peers.running import as_context_manager
from bench.simulator import SimulatorProcess
from web.version import VERSION


@contextmanager
def start_farm(upstream: SimulatorProcess) -> Iterator[RunningSystem]:
    """The farm as `./farm up` starts it, with a larger queue limit and a Redis of the measurement."""
    with run_farm_on(upstream, FARM_MAX_QUEUE="20000") as farm:
        yield RunningSystem(farm.port, API_KEY, upstream, farm.start_seconds, farm.list_processes)


@contextmanager
def start_direct(upstream: SimulatorProcess) -> Iterator[RunningSystem]:
    """The upstream itself, with one account of unlimited concurrency."""
    upstream.control("accounts", {"slots": 1_000_000})
    yield RunningSystem(upstream.port, upstream.fetch_access_tokens()[0], upstream, 0.0, lambda: ())


def find_portkey_version() -> str:
    return portkey.VERSION if find_version("npm", "-v") else ""


SYSTEMS = {
    system.name: system
    for system in (
        System("direct", lambda: "simulator", start_direct, 0),
        System("farm", lambda: VERSION, start_farm),
        System("haproxy", partial(find_version, "haproxy", "-v"), as_context_manager(haproxy.start)),
        System("portkey", find_portkey_version, as_context_manager(portkey.start), 100),
        System("portkey-pass", find_portkey_version, as_context_manager(portkey.start_passing), 0),
        System("litellm", lambda: litellm.VERSION, as_context_manager(litellm.start), 100),
        System("nginx", partial(find_version, "nginx", "-v"), as_context_manager(nginx.start), 0),
    )
}
