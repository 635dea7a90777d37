"""Portkey's gateway. It picks an account at random by weight and keeps no count of what is in flight.

So it is measured in two ways: at the farm's job, with its load balancing over all accounts, and its chains of
fallbacks when there are few; and as a mere pass. Its configuration travels with each request.
"""

import json
import time
from contextlib import ExitStack
from pathlib import Path

from bench.compare.system import Running
from bench.farm import free_port
from bench.peers.places import PLACE, node_place, process, serving
from bench.upstream import Upstream

VERSION = "1.15.2"
#: A newer server library below it answers every stream with 500.
PACKAGES = {
    "private": True,
    "dependencies": {"@portkey-ai/gateway": VERSION},
    "overrides": {"@hono/node-server": "1.14.1"},
}
#: It has no option for the address it binds to.
ON_LOOPBACK = """
const net = require("net");
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  const where = typeof port === "number" ? { port, host: "127.0.0.1" } : port;
  return listen.call(this, where, ...rest.filter((one) => typeof one === "function"));
};
"""
#: Accounts up to which each request may try all of them in turn; its configuration grows with the square.
FEW = 8


def start(upstream: Upstream, folder: Path, stack: ExitStack) -> Running:
    """Portkey that chooses among the accounts of the upstream."""
    config = json.dumps(strategy(upstream.access_tokens(), f"{upstream.url}/v1"), separators=(",", ":"))
    return run(upstream, folder, stack, key="none", headers={"x-portkey-config": config})


def start_passing(upstream: Upstream, folder: Path, stack: ExitStack) -> Running:
    """Portkey that chooses nothing: one account takes as many requests as come."""
    upstream.ask("accounts", {"slots": 1_000_000})
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": f"{upstream.url}/v1"}
    return run(upstream, folder, stack, key=upstream.access_tokens()[0], headers=headers)


def run(upstream: Upstream, folder: Path, stack: ExitStack, *, key: str, headers: dict[str, str]) -> Running:
    """Portkey with these headers on each request."""
    place = node_place("portkey", json.dumps(PACKAGES, indent=1))
    (PLACE / "on_loopback.cjs").write_text(ON_LOOPBACK)
    port = free_port()
    script = place / "node_modules/@portkey-ai/gateway/build/start-server.js"
    node = ["node", "--max-http-header-size=262144", "--require", str(PLACE / "on_loopback.cjs")]
    began = time.perf_counter()
    running = stack.enter_context(
        process(
            [*node, str(script), f"--port={port}", "--headless"],
            folder / "portkey.log",
            f"http://127.0.0.1:{port}/",
            cwd=folder,
            environment={"NODE_ENV": "production"},
        )
    )
    return serving(port, upstream, began, [running], key=key, headers=headers)


def strategy(tokens: list[str], url: str) -> dict[str, object]:
    """Its configuration with the most right answers, as far as we found one."""
    targets = [{"provider": "openai", "api_key": token} for token in tokens]
    if len(targets) > FEW:
        return {"strategy": {"mode": "loadbalance"}, "custom_host": url, "targets": targets}
    chains = []
    for first in range(len(targets)):
        chain = [*targets[first:], *targets[:first]]
        chain[-1] = {**chain[-1], "retry": {"attempts": 5, "on_status_codes": [429]}}  # type: ignore[dict-item]
        chains.append({"strategy": {"mode": "fallback", "on_status_codes": [429]}, "targets": chain})
    return {"strategy": {"mode": "loadbalance"}, "custom_host": url, "targets": chains}
