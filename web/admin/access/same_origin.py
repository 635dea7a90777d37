"""Refuses requests that a page of another origin has made the operator's browser send (CSRF).

SameSite tells neither ports nor subdomains apart, so a page of another service on the same host could use the session's
cookie. Browsers say where a request comes from in headers that no page can forge: `Sec-Fetch-Site` (Fetch Metadata) or,
where that is missing, as over plain HTTP, `Origin` (RFC 6454). A Bearer token needs none of this: no page can make the
browser send one.
"""

from urllib.parse import urlsplit

from flask import request

from shared.errors import ApiError
from web.admin.access import session_cookie
from web.services import services

DEFAULT_PORTS = {"http": 80, "https": 443}


def check_same_origin(*, required: bool) -> None:
    """Raises ApiError 403 for a request from another origin, and with `required` for one that names no origin."""
    is_ours = is_same_origin()
    if is_ours is False or (required and is_ours is None):
        raise ApiError(
            403, "cross_origin", "a session may only be used by the console's own pages; scripts: use Bearer"
        )


def is_same_origin() -> bool | None:
    """Whether a page of the farm's own origin has sent the request; None if it has none of the headers that tell."""
    if fetch_site := request.headers.get("sec-fetch-site"):
        return fetch_site == "same-origin"
    origin = request.headers.get("origin") or request.headers.get("referer")
    return is_own_origin(origin) if origin else None


def is_own_origin(url: str) -> bool:
    """Compares a URL's origin with the host that the browser has asked for; behind TLS only https counts."""
    try:
        origin = urlsplit(url)
        port = origin.port or DEFAULT_PORTS[origin.scheme]
        own_hosts = [urlsplit(f"//{host}") for host in services().trusted_proxies.find_hosts(request)]
        is_own_host = any(
            (own.hostname, own.port or DEFAULT_PORTS[origin.scheme]) == (origin.hostname, port) for own in own_hosts
        )
    except (KeyError, ValueError):
        return False
    return is_own_host and (origin.scheme == "https" or not session_cookie.is_behind_tls())
