"""Says what the HTTPS endpoint still needs, for `./farm config check` and `./farm up`."""

import errno
import socket

from launcher.processes.https.caddyfile import find_listen_host
from launcher.processes.https.ports import describe_obstacle, find_obstacle, find_ports
from launcher.processes.https.proxy import find_addresses
from shared.network.ip_addresses import is_loopback
from shared.settings.schema import Settings


def find_https_warnings(settings: Settings) -> list[str]:
    """What keeps the endpoint from starting or its certificates from being issued; a running farm holds its ports."""
    if not settings.has_https:
        return []
    host = find_listen_host(settings)
    obstacles = [(port, find_obstacle(host, port)) for port in find_ports(settings)]
    missing = [
        describe_obstacle(host, port, obstacle)
        for port, obstacle in obstacles
        if obstacle and obstacle.errno != errno.EADDRINUSE
    ]
    if settings.https == "auto":
        missing += [warning for name in settings.domain if (warning := find_dns_warning(name))]
    return missing


def find_dns_warning(name: str) -> str:
    """Why a certificate authority would not find this machine by a name, '' if it may."""
    try:
        addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return f"FARM_DOMAIN: {name} has no address in DNS: give it an A or AAAA record with that of this machine"
    if all(is_loopback(address) for address in addresses):
        return f"FARM_DOMAIN: {name} is a loopback address, at which no certificate authority can reach it"
    if not addresses & set(find_addresses()):
        listed = ", ".join(sorted(addresses))
        return f"FARM_DOMAIN: {name} is {listed}, none of this machine's addresses; that is right only behind NAT"
    return ""
