"""The endpoints of an authorization server, from its metadata (OpenID Connect Discovery, RFC 8414). No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from shared.settings.schema import PoolSettings
from workers.sign_in.errors import SignInFailed

#: Path at which people find the metadata in a browser, and give that instead of the issuer.
WELL_KNOWN = "/.well-known/"


@dataclass(frozen=True)
class Endpoints:
    """URLs of an authorization server; '' for what it does not have."""

    #: As its tokens and answers name it; '' when the pool has no issuer.
    issuer: str = ""
    authorize_url: str = ""
    token_url: str = ""
    device_url: str = ""
    userinfo_url: str = ""
    keys_url: str = ""
    #: Whether its answers to a browser must name it (RFC 9207).
    names_itself: bool = False


def list_metadata_urls(issuer: str) -> list[str]:
    """Where the metadata may be, the likeliest first (OpenID Connect Discovery section 4, RFC 8414 section 3)."""
    parts = urlsplit(issuer.partition(WELL_KNOWN)[0].rstrip("/"))
    origin = f"{parts.scheme}://{parts.netloc}"
    urls = [
        f"{origin}{parts.path}{WELL_KNOWN}openid-configuration",
        f"{origin}{WELL_KNOWN}oauth-authorization-server{parts.path}",
        f"{origin}{WELL_KNOWN}openid-configuration{parts.path}",
    ]
    return list(dict.fromkeys(urls))


def read_metadata(metadata: Mapping[str, Any], issuer: str) -> Endpoints:
    """Raises SignInFailed unless the metadata is the issuer's own, and keeps to its scheme."""
    configured, named = issuer.partition(WELL_KNOWN)[0], str(metadata.get("issuer", ""))
    if named.rstrip("/") != configured.rstrip("/"):
        raise SignInFailed("discovery_failed", f"FARM_ISSUER is {configured}, and its metadata names {named[:200]!r}")
    return Endpoints(
        issuer=named,
        authorize_url=read_url(metadata, "authorization_endpoint", issuer),
        token_url=read_url(metadata, "token_endpoint", issuer),
        device_url=read_url(metadata, "device_authorization_endpoint", issuer),
        userinfo_url=read_url(metadata, "userinfo_endpoint", issuer),
        keys_url=read_url(metadata, "jwks_uri", issuer),
        names_itself=metadata.get("authorization_response_iss_parameter_supported") is True,
    )


def read_url(metadata: Mapping[str, Any], name: str, issuer: str) -> str:
    """A URL of the metadata. One that leaves TLS is as good as none: it would disclose tokens."""
    url = metadata.get(name)
    schemes = ("https://",) if issuer.startswith("https://") else ("https://", "http://")
    return url if isinstance(url, str) and url.startswith(schemes) else ""


def choose_endpoints(pool: PoolSettings, found: Endpoints) -> Endpoints:
    """The pool's settings go before what its issuer says."""
    return Endpoints(
        issuer=found.issuer,
        authorize_url=pool.authorize_url or found.authorize_url,
        token_url=pool.token_url or found.token_url,
        device_url=pool.device_url or found.device_url,
        userinfo_url=found.userinfo_url,
        keys_url=found.keys_url,
        names_itself=found.names_itself,
    )
