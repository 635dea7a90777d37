"""Checks whether a port is free and whether the front responds."""

import socket
import urllib.error
import urllib.request

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


def is_up(url: str) -> bool:
    """Whether the URL of this machine's own front responds with 200 within two seconds; never through a proxy."""
    try:
        with DIRECT.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False
