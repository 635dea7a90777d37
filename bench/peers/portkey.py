"""Portkey's gateway, which picks an account at random by weight and does not count requests in flight.

Therefore it is measured in two ways: with load balancing over all accounts (and fallback chains when there are few),
and as a plain proxy. Its configuration is sent with each request.
"""

import json
import time
from contextlib import ExitStack
from pathlib import Path

from bench.compare.system import RunningSystem
from bench.farm import find_free_port
from bench.peers.installation import INSTALL_FOLDER, install_node_packages
from bench.peers.running import describe_peer, run_process
from bench.simulator import SimulatorProcess

VERSION = "1.15.2"
#: The server library is pinned: a newer one makes Portkey respond to every stream with 500.
PACKAGES = {
    "private": True,
    "dependencies": {"@portkey-ai/gateway": VERSION},
    "overrides": {"@hono/node-server": "1.14.1"},
}
#: Binds to loopback; Portkey has no option for its address.
ON_LOOPBACK = """
const net = require("net");
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  const options = typeof port === "number" ? { port, host: "127.0.0.1" } : port;
  return listen.call(this, options, ...rest.filter((argument) => typeof argument === "function"));
};
"""
#: Most accounts for which each request may fall back to all of them: the configuration grows with the square.
MAX_CHAINED_ACCOUNTS = 8


def start(upstream: SimulatorProcess, folder: Path, stack: ExitStack) -> RunningSystem:
    """Starts Portkey with load balancing over the upstream's accounts."""
    config = json.dumps(build_config(upstream.fetch_access_tokens(), f"{upstream.url}/v1"), separators=(",", ":"))
    return start_process(upstream, folder, stack, key="none", headers={"x-portkey-config": config})


def start_passing(upstream: SimulatorProcess, folder: Path, stack: ExitStack) -> RunningSystem:
    """Starts Portkey as a plain proxy to one account with unlimited concurrency."""
    upstream.control("accounts", {"slots": 1_000_000})
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": f"{upstream.url}/v1"}
    return start_process(upstream, folder, stack, key=upstream.fetch_access_tokens()[0], headers=headers)


def start_process(
    upstream: SimulatorProcess, folder: Path, stack: ExitStack, *, key: str, headers: dict[str, str]
) -> RunningSystem:
    """Starts Portkey; clients send the key and the headers with each request."""
    installation = install_node_packages("portkey", json.dumps(PACKAGES, indent=1))
    (INSTALL_FOLDER / "on_loopback.cjs").write_text(ON_LOOPBACK)
    port = find_free_port()
    script = installation / "node_modules/@portkey-ai/gateway/build/start-server.js"
    node = ["node", "--max-http-header-size=262144", "--require", str(INSTALL_FOLDER / "on_loopback.cjs")]
    started = time.perf_counter()
    process = stack.enter_context(
        run_process(
            [*node, str(script), f"--port={port}", "--headless"],
            folder / "portkey.log",
            f"http://127.0.0.1:{port}/",
            cwd=folder,
            environment={"NODE_ENV": "production"},
        )
    )
    return describe_peer(port, upstream, started, process, key=key, headers=headers)


def build_config(tokens: list[str], url: str) -> dict[str, object]:
    """The configuration with the most correct responses that we found."""
    targets = [{"provider": "openai", "api_key": token} for token in tokens]
    if len(targets) > MAX_CHAINED_ACCOUNTS:
        return {"strategy": {"mode": "loadbalance"}, "custom_host": url, "targets": targets}
    chains = []
    for first in range(len(targets)):
        chain = [*targets[first:], *targets[:first]]
        chain[-1] = {**chain[-1], "retry": {"attempts": 5, "on_status_codes": [429]}}  # type: ignore[dict-item]
        chains.append({"strategy": {"mode": "fallback", "on_status_codes": [429]}, "targets": chain})
    return {"strategy": {"mode": "loadbalance"}, "custom_host": url, "targets": chains}
