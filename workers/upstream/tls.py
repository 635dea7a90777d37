"""TLS for connections to upstreams and token endpoints: contexts made once, sessions resumed, handshakes paced."""

import ssl
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import gevent
from gevent.lock import BoundedSemaphore
from gevent.socket import wait_read, wait_write
from gevent.ssl import SSLContext, SSLSocket
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.util.ssl_ import create_urllib3_context

from shared.settings.file_checks import load_client_certificate

#: Contexts that are kept; one is replaced when its files change.
MAX_CONTEXTS = 32
#: Seconds for which a session is resumed. That does not verify the server's certificate again, which may have expired.
MAX_SESSION_SECONDS = 3600.0
#: Handshakes of a process that advance before its other greenlets get a turn; each takes 1 to 4 ms of CPU for that.
MAX_HANDSHAKES_IN_A_ROW = 2

_handshake_turns = BoundedSemaphore(MAX_HANDSHAKES_IN_A_ROW)


class UnusableCertificates(OSError):
    """Raised when the file or directory of the trusted certificates can't be used."""


class UnusableClientCertificate(OSError):
    """Raised when the client's certificate and its private key can't be used."""


#: Files of a client certificate and of its private key, which may be the same file.
ClientCertificate = tuple[str, str]


class Session(NamedTuple):
    """A TLS session that later connections resume."""

    value: ssl.SSLSession
    #: By the monotonic clock.
    kept_at: float


#: Host and port of a server.
Server = tuple[str, int]


class UpstreamTlsSocket(SSLSocket):  # type: ignore[misc]
    """A TLS connection that leaves its session to its context."""

    #: The server, until a response has come.
    server: Server | None = None
    #: Whether the handshake offered a session to be resumed.
    has_offered_session = False

    def read(self, nbytes: int = 2014, buffer: Any = None) -> Any:
        """gevent: reads bytes. Of TLS 1.3 a session is complete only when the first ones have come (RFC 8446 4.6.1)."""
        data = super().read(nbytes, buffer)
        if self.server and data:
            self.context.keep_session(self.server, self)
            self.server = None
        return data


class UpstreamTlsContext(SSLContext):  # type: ignore[misc]
    """The TLS settings of many connections, and one session per server, which all of them resume.

    A resumed handshake costs two thirds of the CPU of a full one, and its connection shares the server's certificates
    with the others instead of keeping its own: 10 KB for a chain of two.
    """

    sslsocket_class = UpstreamTlsSocket

    def __init__(self, *_: Any) -> None:
        self._sessions: dict[Server, Session] = {}

    def wrap_socket(self, sock: Any, *, server_hostname: str | None = None, **_: Any) -> UpstreamTlsSocket:
        """urllib3: a TLS connection over a connected socket, whose timeout bounds the handshake. Raises OSError."""
        server = (server_hostname or "", sock.getpeername()[1])
        session = self._find_session(server)
        connection: UpstreamTlsSocket = super().wrap_socket(
            sock, do_handshake_on_connect=False, server_hostname=server_hostname, session=session and session.value
        )
        try:
            shake_hands(connection)
        except BaseException:
            # Servers that can't resume should start anew, but some break off.
            self._sessions.pop(server, None)
            connection.close()
            raise
        connection.server, connection.has_offered_session = server, session is not None
        return connection

    def _find_session(self, server: Server) -> Session | None:
        session = self._sessions.get(server)
        return session if session and time.monotonic() < session.kept_at + MAX_SESSION_SECONDS else None

    def keep_session(self, server: Server, connection: UpstreamTlsSocket) -> None:
        """Keeps a connection's session, if the server accepts no other. Each that is read takes 6 KB."""
        was_made_beside_others = self._find_session(server) and not connection.has_offered_session
        if connection.session_reused or was_made_beside_others:
            return
        session = connection.session
        if session and (session.has_ticket or session.id):
            self._sessions[server] = Session(session, time.monotonic())


def shake_hands(connection: UpstreamTlsSocket) -> None:
    """Performs the handshake. Raises OSError, which may be a TimeoutError.

    When many servers respond at once, the handshakes take turns with everything else, such as renewals of leases.
    """
    timeout = connection.gettimeout()
    expired = TimeoutError("the TLS handshake timed out")
    connection.settimeout(0)
    with gevent.Timeout(timeout, expired):
        while not advance_handshake(connection):
            pass
    connection.settimeout(timeout)


def advance_handshake(connection: UpstreamTlsSocket) -> bool:
    """Goes on until the server has to send more; waits for that, and returns whether the handshake is complete."""
    wait = None
    with _handshake_turns:
        try:
            connection.do_handshake()
        except ssl.SSLWantReadError:
            wait = wait_read
        except ssl.SSLWantWriteError:
            wait = wait_write
        gevent.sleep(0)
    if wait:
        wait(connection.fileno())
    return not wait


def load_context(authorities: str, client: ClientCertificate | None = None) -> UpstreamTlsContext:
    """The context that trusts the certificates in a file or directory, the same one until a file changes.

    Loading a system's bundle takes tens of milliseconds and 700 KB. With a client certificate a server that asks for
    one gets it (mutual TLS, RFC 8705). Raises OSError.
    """
    versions = [identify_file(authorities, UnusableCertificates)]
    versions += [identify_file(file, UnusableClientCertificate) for file in client or ()]
    return _create_context(authorities, client, *versions)


def identify_file(path: str, unusable: type[OSError]) -> tuple[int, int]:
    """What changes when a file is written or replaced. Raises `unusable`."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise unusable(f"{path}: {error.strerror}") from None
    return status.st_mtime_ns, status.st_ino


@lru_cache(MAX_CONTEXTS)
def _create_context(authorities: str, client: ClientCertificate | None, *_: tuple[int, int]) -> UpstreamTlsContext:
    context = UpstreamTlsContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= create_urllib3_context().verify_flags
    context.hostname_checks_common_name = False
    context.post_handshake_auth = True
    context.load_verify_locations(**{"capath" if Path(authorities).is_dir() else "cafile": authorities})
    if client:
        try:
            load_client_certificate(context, client)
        except (OSError, ValueError) as error:
            raise UnusableClientCertificate(f"{client[0]}: {error}") from None
    return context


class TlsAdapter(HTTPAdapter):
    """Has the connections of a session share the context of the certificates that it trusts."""

    def __init__(self, verify: bool | str | None, *, pools: int, pool_size: int) -> None:
        """`verify` as in requests; `pools` is how many servers it keeps connections to, `pool_size` each."""
        super().__init__(pool_connections=pools, pool_maxsize=pool_size, max_retries=0)
        self._proxy_authorities = find_authorities(verify)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """requests: the way through a proxy. One that speaks TLS is verified, but never gets a client certificate."""
        if proxy.lower().startswith("https:"):
            options["proxy_ssl_context"] = load_context(self._proxy_authorities)
        return super().proxy_manager_for(proxy, **options)

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        """requests: how to reach the server of a request. Raises OSError."""
        host, options = super().build_connection_pool_key_attributes(request, verify, cert)
        if host["scheme"] == "https":
            context = load_context(find_authorities(verify), cert)
            options = {"cert_reqs": options["cert_reqs"], "ssl_context": context}
        return host, options

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """requests: would have every new connection load the certificates again."""


def find_authorities(verify: Any) -> str:
    """The file or directory of trusted certificates that requests means by its `verify`."""
    return verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH
