"""HAProxy: a server for each account with `maxconn 1`, and its own queue in front. The bar for scheduling.

A server's name is its access token, sent as the Authorization header. It can't refresh one.
"""

import time
from contextlib import ExitStack
from pathlib import Path

import psutil

from bench.compare.system import Running
from bench.farm import KEY, free_port
from bench.peers.places import process, serving
from bench.upstream import Upstream

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
{rules}{servers}
"""


def exclusive(
    folder: Path, stack: ExitStack, tokens: list[str], behind: int, rules: str = ""
) -> tuple[int, psutil.Process]:
    """HAProxy with an account for each token in front of a port; returns its own port and its process."""
    port = free_port()
    servers = "".join(f"    server {token} 127.0.0.1:{behind} maxconn 1\n" for token in tokens)
    file = folder / "haproxy.cfg"
    file.write_text(CONFIG.format(port=port, key=KEY, rules=rules, servers=servers))
    ready = f"http://127.0.0.1:{port}/healthz"
    return port, stack.enter_context(process(["haproxy", "-db", "-f", str(file)], folder / "haproxy.log", ready))


def start(upstream: Upstream, folder: Path, stack: ExitStack) -> Running:
    """HAProxy straight in front of the upstream."""
    tokens = upstream.access_tokens()
    began = time.perf_counter()
    port, running = exclusive(folder, stack, tokens, upstream.port)
    return serving(port, upstream, began, [running])
