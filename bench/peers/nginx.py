"""nginx as a plain proxy, without scheduling: the least that forwarding a request can cost."""

import time
from contextlib import ExitStack
from pathlib import Path

from bench.compare.system import RunningSystem
from bench.farm import find_free_port
from bench.peers.running import describe_peer, run_process
from bench.simulator import SimulatorProcess

CONFIG = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
worker_processes 1;
events {{ worker_connections 9000; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    keepalive_timeout 600s;
    upstream simulator {{
        server 127.0.0.1:{upstream};
        keepalive 1024;
        keepalive_requests 1000000;
        keepalive_timeout 600s;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /healthz {{ return 200; }}
        location / {{
            proxy_pass http://simulator;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 600s;
            proxy_next_upstream off;
        }}
    }}
}}
"""


def start(upstream: SimulatorProcess, folder: Path, stack: ExitStack) -> RunningSystem:
    """Starts nginx in front of one account with unlimited concurrency."""
    upstream.control("accounts", {"slots": 1_000_000})
    token = upstream.fetch_access_tokens()[0]
    port = find_free_port()
    path = folder / "nginx.conf"
    path.write_text(CONFIG.format(folder=folder, port=port, upstream=upstream.port))
    started = time.perf_counter()
    command = ["nginx", "-p", str(folder), "-c", str(path), "-e", "stderr"]
    process = stack.enter_context(run_process(command, folder / "nginx.log", f"http://127.0.0.1:{port}/healthz"))
    return describe_peer(port, upstream, started, process, key=token)
