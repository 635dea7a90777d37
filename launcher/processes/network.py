"""Checks whether a port is free and whether the front responds."""

import contextlib
import http.client
import socket
import urllib.error
import urllib.request
from pathlib import Path

from shared.errors import FarmError

#: Opens URLs without the environment's proxies.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def check_port(host: str, port: int) -> None:
    """Raises FarmError when the front could not listen on this address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as error:
            raise FarmError(f"can't listen on {host}:{port}: {error.strerror}; set PORT to a free port") from None


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def request_on_socket(
    path: Path, method: str, target: str, body: bytes | None = None, content_type: str = "", timeout: float = 2.0
) -> tuple[int, bytes]:
    """Returns status and body of the response. Raises OSError; `timeout` is in seconds."""
    with contextlib.closing(UnixConnection(path, timeout)) as connection:
        try:
            connection.request(method, target, body, {"content-type": content_type} if content_type else {})
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from None


def is_up_on_socket(path: Path, target: str) -> bool:
    """Whether the front responds with 200 on its unix socket within two seconds."""
    try:
        return request_on_socket(path, "GET", target)[0] == 200
    except OSError:
        return False


def is_up(url: str) -> bool:
    """Whether the URL of this machine's own front responds with 200 within two seconds; never through a proxy."""
    try:
        with DIRECT.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False
