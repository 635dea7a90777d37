"""nginx as a plain proxy: the floor of what passing a request on costs. It schedules nothing; one account takes all."""

import time
from contextlib import ExitStack
from pathlib import Path

from bench.compare.system import Running
from bench.farm import free_port
from bench.peers.places import process, serving
from bench.upstream import Upstream

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


def start(upstream: Upstream, folder: Path, stack: ExitStack) -> Running:
    """nginx in front of one account that takes as many requests as come."""
    upstream.ask("accounts", {"slots": 1_000_000})
    token = upstream.access_tokens()[0]
    port = free_port()
    file = folder / "nginx.conf"
    file.write_text(CONFIG.format(folder=folder, port=port, upstream=upstream.port))
    began = time.perf_counter()
    command = ["nginx", "-p", str(folder), "-c", str(file), "-e", "stderr"]
    running = stack.enter_context(process(command, folder / "nginx.log", f"http://127.0.0.1:{port}/healthz"))
    return serving(port, upstream, began, [running], key=token)
