"""Services that receive alerts: by HTTP, as apprise posts JSON, and by SMTP."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gevent.event import Event

from tests.environment import ROOT, free_port
from tests.waiting import eventually


class Receiver:
    """What has arrived, and how it is answered."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.status = 200
        #: Unset: requests wait for their answer.
        self.answers = Event()
        self.answers.set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.port}/hook-secret"

    @property
    def titles(self) -> list[str]:
        return [message["title"].partition("] ")[2] for message in self.messages]


@contextmanager
def run_receiver() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.messages.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            receiver.answers.wait()
            self.send_response(receiver.status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield receiver
    receiver.answers.set()
    server.shutdown()
    server.server_close()
    thread.join()


@contextmanager
def run_mail_server(folder: Path) -> Iterator[int]:
    """Runs an SMTP server that puts mails into a folder (Maildir); yields its port."""
    port = free_port()
    handler = ("-c", "aiosmtpd.handlers.Mailbox", str(folder))
    server = subprocess.Popen([sys.executable, "-m", "aiosmtpd", "-n", "-l", f"127.0.0.1:{port}", *handler], cwd=ROOT)
    eventually(lambda: can_connect(port))
    yield port
    server.terminate()
    server.wait()


def can_connect(port: int) -> bool:
    with socket.socket() as end:
        return not end.connect_ex(("127.0.0.1", port))
