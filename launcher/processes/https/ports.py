"""Whether Caddy can listen on its ports, and where it answers."""

import errno
import socket
import ssl

from launcher.processes.https.caddyfile import find_listen_host
from shared.errors import FarmError
from shared.settings.schema import Settings

#: The port on which automatic HTTPS redirects to 443, and on which a certificate authority looks.
REDIRECT_PORT = 80
#: Seconds that a handshake with this machine's own Caddy may take.
HANDSHAKE_SECONDS = 5.0
NOT_PERMITTED = (
    "not permitted; run the farm as root or with CAP_NET_BIND_SERVICE, or allow it to all with "
    "`sysctl -w net.ipv4.ip_unprivileged_port_start=80`"
)


def find_ports(settings: Settings) -> list[int]:
    """The TCP ports of the HTTPS endpoint."""
    port = settings.https_endpoint_port
    return [REDIRECT_PORT, port] if settings.https == "auto" and port == 443 else [port]


def find_obstacle(host: str, port: int) -> OSError | None:
    """Why nothing can listen on a port now; `host` '' is all addresses."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        return error
    return None


def describe_obstacle(host: str, port: int, obstacle: OSError) -> str:
    is_refused = obstacle.errno in (errno.EACCES, errno.EPERM)
    reason = NOT_PERMITTED if is_refused else f"{obstacle.strerror}; FARM_HTTPS_PORT sets another port than 443 or 8443"
    return f"can't listen on {host or 'all addresses'}, port {port}, for HTTPS: {reason}"


def check_ports(settings: Settings) -> None:
    """Raises FarmError unless Caddy can listen on all its ports."""
    host = find_listen_host(settings)
    for port in find_ports(settings):
        if obstacle := find_obstacle(host, port):
            raise FarmError(describe_obstacle(host, port, obstacle))


def has_certificate(settings: Settings, name: str) -> bool:
    """Whether Caddy completes a handshake for this name; it does once it has a certificate for it."""
    host = find_listen_host(settings)
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1"}.get(host, host)
    context = ssl.create_default_context()
    # The certificate is not judged here: the caller may trust a CA that this machine does not.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, settings.https_endpoint_port), HANDSHAKE_SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=name),
        ):
            return True
    except (OSError, ValueError):
        return False
