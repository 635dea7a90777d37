"""Settings that are allowed but probably a mistake, for `./farm config check` and the log at the start."""

import re
from typing import NamedTuple
from urllib.parse import urlsplit

from shared.network.ip_addresses import is_loopback_host
from shared.settings.schema import PoolSettings, Settings

#: A version in the path of a base URL: `/v1`, `/v1beta/openai`, `/api/v3`.
VERSION = re.compile(r"/v\d")


class SettingWarning(NamedTuple):
    """A doubtful setting of a pool, in a sentence that names it and has no secret."""

    pool: str
    text: str
    #: Of its log record.
    action: str = "doubtful_setting"

    def __str__(self) -> str:
        return f"pool {self.pool}: {self.text}"


def find_warnings(settings: Settings) -> list[SettingWarning]:
    return [warning for pool in settings.pools for warning in find_pool_warnings(pool)]


def find_pool_warnings(pool: PoolSettings) -> list[SettingWarning]:
    warnings = []
    if pool.upstream_url and not VERSION.search(urlsplit(pool.upstream_url).path):
        text = f"FARM_UPSTREAM_URL has no version such as /v1: chats go to {pool.upstream_url}/chat/completions"
        warnings.append(SettingWarning(pool.name, text))
    unused = [name for name in ("client_id", "client_secret", "scope") if getattr(pool, name)]
    if pool.token_request == "bearer" and unused:  # noqa: S105
        names = ", ".join(f"FARM_{name.upper()}" for name in unused)
        warnings.append(SettingWarning(pool.name, f"{names}: not sent with FARM_TOKEN_REQUEST=bearer"))
    for name, url, sent in (
        ("FARM_UPSTREAM_URL", pool.upstream_url, "access tokens and prompts"),
        ("FARM_TOKEN_URL", pool.token_url, "refresh tokens"),
        ("FARM_ISSUER", pool.issuer, "codes and tokens of sign-ins"),
        ("FARM_DEVICE_URL", pool.device_url, "codes of sign-ins"),
        ("FARM_REVOCATION_URL", pool.revocation_url, "refresh tokens"),
    ):
        if is_plain_http(url):
            text = f"{name} is http://: {sent} cross the network unencrypted; use https://"
            warnings.append(SettingWarning(pool.name, text, "plain_http"))
    return warnings


def is_plain_http(url: str) -> bool:
    """Whether a URL lacks the TLS that tokens must travel over (RFC 6749 section 3.2); this machine needs none."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback_host(parts.hostname or "")
