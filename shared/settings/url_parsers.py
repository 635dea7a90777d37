"""Parsers of URLs in settings, which take only what the clients can use, so that a mistake shows at the start.

They raise InvalidSecret, whose messages don't repeat the URL: it may contain a password.
"""

import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from redis.connection import ConnectionPool

from shared.files_url import InvalidFilesUrl, parse_store_url
from shared.sentinel_url import SCHEMES as SENTINEL_SCHEMES
from shared.sentinel_url import InvalidSentinelUrl, parse_sentinel_url
from shared.settings.parsers import InvalidSecret, parse_text

#: Endpoints that people leave at the end of a base URL; `models` only behind a version, because some bases end in it.
ENDPOINT_AT_END = re.compile(
    r"(/chat/completions|/completions|/embeddings|/responses|/moderations|/images/\w+|/audio/\w+|(?<=/v\d)/models)$"
)
#: Schemes of proxies. `socks` is what desktops put into `all_proxy`.
PROXY_SCHEMES = ("http", "https", "socks", "socks4", "socks4a", "socks5", "socks5h")


def parse_url(value: Any) -> str:
    """Parses an absolute http(s) URL; '' stays ''."""
    url = normalise_url(parse_text(value), ("http", "https"))
    if urlsplit(url).username is not None:
        raise InvalidSecret("must not contain a user name or password, which no request would have")
    return url


def parse_base_url(value: Any) -> str:
    """Parses a URL, as parse_url does, to which paths are appended; strips trailing slashes."""
    url = parse_url(value).rstrip("/")
    if "?" in url:
        raise InvalidSecret("must not contain a query (?): paths are appended to it")
    if endpoint := ENDPOINT_AT_END.search(url):
        raise InvalidSecret(f"ends in the endpoint {endpoint[1]}: give the base URL, without it")
    return url


def parse_proxy_url(value: Any) -> str:
    """Parses the URL of an HTTP or SOCKS proxy; '' stays ''."""
    url = normalise_url(parse_text(value), PROXY_SCHEMES).rstrip("/")
    scheme, separator, rest = url.partition("://")
    # The proxy resolves the names, as desktops expect of `socks://`.
    return f"socks5h://{rest}" if scheme == "socks" else f"{scheme}{separator}{rest}"


def parse_files_url(value: Any) -> str:
    """Parses the URL of a directory or an S3 bucket; '' stays ''."""
    url = parse_text(value)
    if url:
        try:
            store = parse_store_url(url)
        except InvalidFilesUrl as error:
            raise InvalidSecret(str(error)) from None
        if store.endpoint:
            normalise_url(store.endpoint, ("http", "https"))
    return url


def parse_redis_url(value: Any) -> str:
    """Parses a URL for redis-py, or one that names sentinels; '' stays ''."""
    text = parse_text(value)
    scheme, separator, rest = text.partition("://")
    if scheme.lower() in SENTINEL_SCHEMES:
        return parse_redis_sentinel_url(f"{scheme.lower()}{separator}{rest}")
    url = normalise_url(text, ("redis", "rediss", "unix"))
    if url:
        check_redis_options(url)
    return url


def parse_redis_sentinel_url(url: str) -> str:
    """Checks the URL of each server in it."""
    if "#" in url:
        raise InvalidSecret("must not contain a fragment (#); in a password it is written %23")
    try:
        parsed = parse_sentinel_url(url)
    except InvalidSentinelUrl as error:
        raise InvalidSecret(str(error)) from None
    except ValueError:
        raise InvalidSecret("has an invalid host, port or option") from None
    for server_url in (parsed.redis_url, *parsed.sentinel_urls):
        check_authority(server_url)
        check_redis_options(server_url)
    return url


def check_redis_options(url: str) -> None:
    """Raises InvalidSecret unless redis-py takes the URL's path and options."""
    parts = urlsplit(url)
    database = parts.path.strip("/")
    if parts.scheme == "unix" and not database:
        raise InvalidSecret("has no path of a socket")
    if parts.scheme != "unix" and database and not database.isdecimal():
        raise InvalidSecret("must end with the number of a database, or with none")
    try:
        parse_qsl(parts.query, strict_parsing=bool(parts.query), max_num_fields=100)
        ConnectionPool.from_url(url).make_connection()
    except (ValueError, TypeError, AttributeError):
        raise InvalidSecret("has options that Redis's client does not take") from None


def normalise_url(url: str, schemes: tuple[str, ...]) -> str:
    """The URL with its scheme in lower case (RFC 3986 section 3.1); checks scheme and host. '' stays ''."""
    if not url:
        return ""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in schemes:
        *others, last = (f"{scheme}://" for scheme in schemes)
        hint = ", without quotes around it" if url[0] in "\"'" else ""
        raise InvalidSecret(f"must begin with {', '.join(others)} or {last}{hint}")
    url = f"{scheme.lower()}{separator}{rest}"
    if scheme.lower() != "unix":
        check_authority(url)
    if "#" in url:
        raise InvalidSecret("must not contain a fragment (#); in a password it is written %23")
    return url


def check_authority(url: str) -> None:
    """Raises InvalidSecret unless the URL has a valid host, and a valid port or none (RFC 3986 section 3.2)."""
    if any(character.isspace() or character == "\\" or not character.isprintable() for character in url):
        raise InvalidSecret("must not contain white space, backslashes or control characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise InvalidSecret("has an invalid host or port; a password in it must be percent-encoded") from None
    if port == 0 or parts.netloc.endswith(":"):
        raise InvalidSecret("has an invalid port")
    if ":" not in host and not is_host_name(host):
        raise InvalidSecret("has no valid host name")


def is_host_name(host: str) -> bool:
    """Whether it is a host name or IPv4 address; underscores are allowed, as in the names of containers."""
    try:
        labels = host.removesuffix(".").encode("idna").decode().split(".")
    except UnicodeError:
        return False
    return all(re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", label) for label in labels)
