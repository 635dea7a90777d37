"""Builds the Caddyfile of the HTTPS endpoint; what Caddy does with a request is in deploy/farm.caddy."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.bootstrap import ROOT
from shared.network.ip_addresses import is_loopback_host
from shared.settings.schema import Settings

#: What Caddy does with each request, shared with the Caddyfile for containers.
ROUTES = ROOT / "deploy" / "farm.caddy"
#: FARM_LOG_LEVEL -> Caddy's; at INFO it has a line for each thing that goes well.
LOG_LEVELS = {"debug": "INFO", "info": "WARN", "warning": "WARN", "error": "ERROR"}
LOG_FORMATS = {"text": ["wrap console {", "\tlevel_format upper", "}"], "json": ["wrap json"]}
#: 1. The log has no headers and no query, where keys may be, and no line for each caller that leaves.
#: 2. A caller whose host has vanished is found as soon as the fronts would find it.
#: 3. After a reload running requests end under the old configuration, within the grace period.
TEMPLATE = """\
# Written by `./farm up` at each start and reload.
{{
	admin {admin_socket}
	log {{
		level {log_level}
		exclude admin http.handlers.reverse_proxy
		format filter {{
{log_format}
			request>uri delete
			request>headers delete
		}}
	}}
{options}
	servers {{
{server}
		keepalive_idle 15s
		keepalive_interval 5s
		keepalive_count 3
	}}
}}

import {routes}

{sites} {{
{site}
	import farm {front}
}}
"""


@dataclass(frozen=True)
class Sockets:
    """The unix sockets behind Caddy: that of the fronts, and its own for a new configuration."""

    front: Path
    admin: Path


def build_caddyfile(settings: Settings, sockets: Sockets, names: Sequence[str]) -> str:
    """`names` are those for which the local CA makes certificates; the first one's goes to callers that name none."""
    port = settings.https_endpoint_port
    options = ["persist_config off", f"grace_period {settings.max_total_timeout:g}s", f"https_port {port}"]
    if port != 443 or settings.https == "internal":
        options.append("auto_https disable_redirects")
    if settings.https == "internal":
        sites, site = f"https://:{port}", ["tls internal"]
        options += ["skip_install_trust", f"tls_automate_names {' '.join(names)}", f"default_sni {names[0]}"]
    else:
        sites, site = ", ".join(f"https://{name}:{port}" for name in settings.domain), ["import hsts"]
    if host := find_listen_host(settings):
        site.append(f"bind {host}")
    trusted = " ".join(settings.trusted_proxies)
    proxies = [f"trusted_proxies static {trusted}", "trusted_proxies_strict"] if trusted else []
    # Heads and idle connections are bounded; bodies, waits and replies are the fronts' to bound.
    server = [*proxies, "timeouts {", "\tread_header 30s", "\tidle 5m", "}"]
    return TEMPLATE.format(
        admin_socket=quote(f"unix/{sockets.admin}|0600"),
        log_level=LOG_LEVELS[settings.log_level],
        log_format=indent(LOG_FORMATS[settings.log_format], 3),
        options=indent(options, 1),
        server=indent(server, 2),
        routes=quote(str(ROUTES)),
        sites=sites,
        site=indent(site, 1),
        front=quote(f"unix/{sockets.front}"),
    )


def find_listen_host(settings: Settings) -> str:
    """The address that Caddy listens on, '' for all: HOST, but for a FARM_DOMAIN loopback alone would be of no use."""
    if settings.https == "auto" and is_loopback_host(settings.host):
        return ""
    return "" if settings.host == "::" else settings.host


def indent(lines: list[str], depth: int) -> str:
    return "\n".join("\t" * depth + line for line in lines)


def quote(text: str) -> str:
    """A token of a Caddyfile, which may contain spaces."""
    return json.dumps(text, ensure_ascii=False)
