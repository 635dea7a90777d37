"""The proxies and CA bundle that the environment names, as curl and requests read them.

The farm's own loopback (the bundled simulator, an upstream on this machine) is never reached through a proxy.
"""

import functools
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

import requests
from requests.utils import select_proxy

from shared.errors import SettingsError
from shared.network.ip_addresses import is_loopback_host
from shared.settings.parsers import InvalidSecret
from shared.settings.url_parsers import parse_proxy_url

#: Variables with the path of a CA bundle; the first one that is set counts.
CA_BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@functools.cache
def read_environment(url: str) -> tuple[Mapping[str, str], bool | str]:
    """The environment's proxies and CA bundle for a URL. Raises SettingsError, which does not repeat the proxy's URL.

    Cached, and called before the fork too: on macOS reading the proxies crashes a forked process.
    """
    environment = requests.Session().merge_environment_settings(url, {}, None, None, None)
    proxy = None if is_loopback_host(urlsplit(url).hostname or "") else select_proxy(url, environment["proxies"])
    return normalise_proxy(url, proxy), True if environment["verify"] is None else environment["verify"]


def normalise_proxy(url: str, proxy: str | None) -> Mapping[str, str]:
    """The proxy for a URL as requests takes it. curl's form `host:port` means an HTTP proxy."""
    if not proxy:
        return {}
    scheme = urlsplit(url).scheme
    try:
        return {scheme: parse_proxy_url(proxy if "://" in proxy else f"http://{proxy}")}
    except InvalidSecret as error:
        names = f"{scheme.upper()}_PROXY or ALL_PROXY"
        raise SettingsError(f"the proxy in the environment ({names}) {error}; NO_PROXY excepts hosts from it") from None


def find_ca_bundle(environ: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """The variable that names a CA bundle, and its path; ('', '') for none."""
    return next(((name, path) for name in CA_BUNDLE_VARIABLES if (path := environ.get(name, ""))), ("", ""))
