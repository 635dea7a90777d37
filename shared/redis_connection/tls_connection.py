"""TLS connections to Redis that share one SSLContext.

redis-py makes a context for each connection, which loads the system's certificates each time: 15 to 40 ms of CPU and
730 KB. A worker process has a connection per worker, and was busy beyond its leases when all of them broke at once.
"""

import ssl
from functools import lru_cache
from typing import Any

from redis.connection import SSLConnection


class SharedContextConnection(SSLConnection):  # type: ignore[misc]
    """A connection by `rediss://`, with all options of redis-py."""

    def _wrap_socket_with_ssl(self, sock: Any) -> Any:
        if self.ssl_validate_ocsp or self.ssl_validate_ocsp_stapled or self.ssl_min_version or self.ssl_ciphers:
            return super()._wrap_socket_with_ssl(sock)
        context = create_context(
            self.cert_reqs,
            self.check_hostname,
            (self.ca_certs, self.ca_path, self.ca_data),
            (self.certfile, self.keyfile, self.certificate_password),
            tuple(self.ssl_include_verify_flags or ()),
            tuple(self.ssl_exclude_verify_flags or ()),
        )
        return context.wrap_socket(sock, server_hostname=self.host)


@lru_cache
def create_context(
    verify_mode: ssl.VerifyMode,
    check_hostname: bool,
    authorities: tuple[Any, Any, Any],
    certificate: tuple[Any, Any, Any],
    included_flags: tuple[ssl.VerifyFlags, ...],
    excluded_flags: tuple[ssl.VerifyFlags, ...],
) -> ssl.SSLContext:
    """The context for these options of redis-py; its files are read once, so that a changed one needs a reload."""
    context = ssl.create_default_context()
    context.check_hostname = check_hostname
    context.verify_mode = verify_mode
    for flag in included_flags:
        context.verify_flags |= flag
    for flag in excluded_flags:
        context.verify_flags &= ~flag
    if any(certificate):
        context.load_cert_chain(*certificate)
    if any(authorities):
        context.load_verify_locations(*authorities)
    return context


def select_tls_class(url: str) -> dict[str, type]:
    """The argument of redis-py's pools for connections with a shared SSLContext; none without TLS."""
    return {"connection_class": SharedContextConnection} if url.startswith("rediss://") else {}
