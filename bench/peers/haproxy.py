"""HAProxy with a server per account, `maxconn 1` and its own queue: the reference for scheduling.

A server's name is its access token, which HAProxy sends as Authorization header and cannot refresh.
"""

import time
from contextlib import ExitStack
from pathlib import Path

from bench.compare.system import RunningSystem
from bench.farm import API_KEY, find_free_port
from bench.peers.running import describe_peer, run_process
from bench.simulator import SimulatorProcess

CONFIG = """
global
    nbthread 1
    maxconn 9000
defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout queue 120s
    timeout http-keep-alive 600s
    retries 0
    no option redispatch
    option http-no-delay
frontend clients
    bind 127.0.0.1:{port}
    monitor-uri /healthz
    http-request deny deny_status 401 unless {{ req.hdr(authorization) "Bearer {key}" }}
    default_backend accounts
backend accounts
    balance leastconn
    http-reuse always
    http-send-name-header Authorization
{servers}
"""


def start(upstream: SimulatorProcess, folder: Path, stack: ExitStack) -> RunningSystem:
    tokens = upstream.fetch_access_tokens()
    started = time.perf_counter()
    port = find_free_port()
    servers = "".join(f"    server {token} 127.0.0.1:{upstream.port} maxconn 1\n" for token in tokens)
    path = folder / "haproxy.cfg"
    path.write_text(CONFIG.format(port=port, key=API_KEY, servers=servers))
    command = ["haproxy", "-db", "-f", str(path)]
    ready_url = f"http://127.0.0.1:{port}/healthz"
    process = stack.enter_context(run_process(command, folder / "haproxy.log", ready_url))
    return describe_peer(port, upstream, started, process)
