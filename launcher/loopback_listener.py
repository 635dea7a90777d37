"""Receives the browser of a sign-in on this machine (RFC 8252 section 7.3)."""

import http.server
import queue
import threading
from collections.abc import Callable
from html import escape
from typing import Any
from urllib.parse import parse_qsl, urlsplit

PAGE = '<!doctype html><html lang="en"><meta charset="utf-8"><title>{0}</title><h1>{0}</h1><p>{1}</p></html>'
CALLBACK_PATH = "/callback"


class LoopbackListener:
    """An HTTP server for the one request with which the browser comes back."""

    def __init__(self, port: int, take_answer: Callable[[dict[str, str]], str]) -> None:
        """`port` 0: any that is free. `take_answer(parameters)` returns what the owner reads. Raises OSError."""
        self._take_answer = take_answer
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), self._build_handler())
        self.redirect_uri = f"http://127.0.0.1:{self._server.server_port}{CALLBACK_PATH}"

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _build_handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        take_answer = self._take_answer

        class Handler(http.server.BaseHTTPRequestHandler):
            """Answers with a page; keeps the query, which has a code, out of the terminal."""

            def do_GET(self) -> None:
                answer = parse_answer(self.path)
                if not answer:
                    self.send_error(404)
                    return
                page = PAGE.format("Token farm", escape(take_answer(answer))).encode()
                self.send_response(200)
                self.send_header("content-type", "text/html; charset=utf-8")
                self.send_header("content-length", str(len(page)))
                self.send_header("referrer-policy", "no-referrer")
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, *args: Any) -> None: ...

        return Handler


def parse_answer(url: str) -> dict[str, str]:
    """The parameters of an address to which a browser was sent back; {} when it is none."""
    parts = urlsplit(url.strip())
    fields = dict(parse_qsl(parts.query)) if parts.path == CALLBACK_PATH else {}
    return fields if "state" in fields else {}


class PastedAnswers:
    """Addresses that the operator pastes, because the browser runs on another machine than the farm."""

    def __init__(self, read_line: Callable[[], str]) -> None:
        self._answers: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        self._read_line = read_line
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while line := self._read_line():
            if answer := parse_answer(line):
                self._answers.put(answer)

    def take(self) -> dict[str, str]:
        """The next one, {} while there is none."""
        return {} if self._answers.empty() else self._answers.get()
