"""Parses URLs of a Redis that Sentinel watches: redis+sentinel://[user:password@]host:port,host:port/service[/db]."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlencode

#: Scheme -> that of each server behind it.
SCHEMES = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
DEFAULT_PORT = 26379
#: Prefix of options that are for the sentinels only.
PREFIX = "sentinel_"
#: Options that only the sentinels may have, without the prefix.
SENTINEL_OPTIONS = ("username", "password", "ssl")


class InvalidSentinelUrl(ValueError):
    """Raised for a URL without a part that it needs; the message doesn't repeat the URL."""


@dataclass(frozen=True)
class SentinelUrl:
    """What the URL says, as URLs of single servers that redis-py takes."""

    #: Of each sentinel, with its own user and password (`sentinel_username`, `sentinel_password`).
    sentinel_urls: tuple[str, ...]
    #: Name of the primary that the sentinels watch.
    service: str
    #: Of the primary, with a sentinel's address in place of its own, which only the sentinels know.
    redis_url: str


def is_sentinel_url(url: str) -> bool:
    return url.partition("://")[0] in SCHEMES


def parse_sentinel_url(url: str) -> SentinelUrl:
    """Raises InvalidSentinelUrl, or another ValueError, whose message may hold a password.

    The TLS options hold for the primary and for the sentinels, which use TLS as it does unless `sentinel_ssl=no`.
    """
    # Not by urlsplit: later releases of Python refuse several addresses with brackets (IPv6).
    server, _, given_query = url.partition("?")
    scheme_name, _, rest = server.partition("://")
    authority, _, path = rest.partition("/")
    user, at, addresses = authority.rpartition("@")
    hosts = [add_port(host) for host in addresses.split(",")]
    service, _, database = path.strip("/").partition("/")
    if not service:
        raise InvalidSentinelUrl(
            "must have the name of the primary that the sentinels watch after the addresses, e.g. /farm"
        )
    options = parse_qsl(given_query, strict_parsing=bool(given_query), max_num_fields=100)
    scheme = SCHEMES[scheme_name]
    shared = {name: value for name, value in options if name.startswith("ssl_")}
    own = {name.removeprefix(PREFIX): value for name, value in options if name.startswith(PREFIX)}
    if own.keys() - set(SENTINEL_OPTIONS):
        raise InvalidSentinelUrl("has an option for the sentinels that is none of " + ", ".join(SENTINEL_OPTIONS))
    uses_tls = own.pop("ssl", "yes").lower() not in ("no", "false", "0")
    sentinel_scheme = scheme if uses_tls else "redis"
    sentinel_query = urlencode(own | (shared if sentinel_scheme == "rediss" else {}))
    query = urlencode([option for option in options if not option[0].startswith(PREFIX)])
    return SentinelUrl(
        tuple(f"{sentinel_scheme}://{host}/?{sentinel_query}" for host in hosts),
        unquote(service),
        f"{scheme}://{user}{at}{hosts[0]}/{database}?{query}",
    )


def add_port(address: str) -> str:
    """The address with Sentinel's port, if it has none."""
    return address if re.search(r":\d*$", address.rpartition("]")[2]) else f"{address}:{DEFAULT_PORT}"
