"""The base URL that callers use, for lines to paste."""

from flask import request

from web.services import services


def find_base_url() -> str:
    """The URL that callers use, as the operator's browser has reached the farm."""
    settings = services().settings
    if settings.domain:
        port = settings.https_endpoint_port if settings.has_https else 443
        return f"https://{settings.domain[0]}{'' if port == 443 else f':{port}'}/v1"
    scheme = "https" if services().trusted_proxies.is_https(request) else "http"
    return f"{scheme}://{services().trusted_proxies.find_hosts(request)[-1]}/v1"
