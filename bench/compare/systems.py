"""The systems that can be measured: the upstream without anything in front of it, the farm, and its peers."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from bench.compare.system import Running, System
from bench.farm import KEY, farm_of
from bench.peers import haproxy, litellm, nginx, portkey
from bench.peers.places import started, version_of
from bench.upstream import Upstream
from web.version import VERSION


@contextmanager
def start_farm(upstream: Upstream) -> Iterator[Running]:
    """The farm as `./farm up` starts it, with room in its queue, on a Redis that the measurement can look into."""
    with farm_of(upstream, FARM_MAX_QUEUE="20000") as bench:
        yield Running(bench.port, KEY, upstream, bench.start_seconds, bench.processes)


@contextmanager
def start_nothing(upstream: Upstream) -> Iterator[Running]:
    """The upstream itself, on one account that takes as many requests as come."""
    upstream.ask("accounts", {"slots": 1_000_000})
    yield Running(upstream.port, upstream.access_tokens()[0], upstream, 0.0, lambda: ())


SYSTEMS = {
    one.name: one
    for one in (
        System("direct", lambda: "simulator", start_nothing, 0),
        System("farm", lambda: VERSION, start_farm),
        System("haproxy", partial(version_of, "haproxy", "-v"), started(haproxy.start)),
        System("portkey", lambda: portkey.VERSION if version_of("npm", "-v") else "", started(portkey.start), 100),
        System(
            "portkey-pass",
            lambda: portkey.VERSION if version_of("npm", "-v") else "",
            started(portkey.start_passing),
            0,
        ),
        System("litellm", lambda: litellm.VERSION, started(litellm.start), 100),
        System("nginx", partial(version_of, "nginx", "-v"), started(nginx.start), 0),
    )
}
