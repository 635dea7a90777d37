"""The reverse proxy of a farm: Caddy in front of the unix socket of the fronts."""

import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from launcher.processes.https.caddyfile import Sockets, build_caddyfile
from launcher.processes.https.ports import check_ports, has_certificate
from launcher.processes.https.program import ensure_program
from launcher.processes.network import request_on_socket
from launcher.processes.process_group import start_in_session
from launcher.processes.redis_server import prepare_socket_path
from launcher.processes.termination import wait_until
from shared.errors import FarmError
from shared.network.ip_addresses import is_loopback_host, parse_address
from shared.settings.schema import Settings

#: Folder of Caddy's data within the data dir: certificates, keys, its configuration. Caddy itself calls it so.
FOLDER = "caddy"
#: Certificate of the local CA, which callers have to trust.
LOCAL_ROOT = Path(FOLDER, "pki", "authorities", "local", "root.crt")
#: Seconds within which Caddy must have taken a new configuration.
LOAD_SECONDS = 30.0
#: Seconds for which the start waits for a certificate; an authority needs about five for one.
CERTIFICATE_SECONDS = 10.0


class ReverseProxy:
    """Caddy, with all it writes in the data dir; of the environment it gets no setting and no secret of the farm."""

    def __init__(self, settings: Settings, data_dir: Path, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._data_dir = data_dir.resolve()
        self._environment = build_environment(environment, self._data_dir)
        self._program = Path()
        in_data_dir = prepare_socket_path(data_dir)
        self.sockets = Sockets(in_data_dir.with_name("web.sock"), in_data_dir.with_name("caddy.sock"))

    def prepare(self, print_line: Callable[[str], None]) -> None:
        """Installs Caddy if it is missing, and checks the ports. Raises FarmError."""
        check_ports(self._settings)
        self._program = ensure_program(print_line)
        (self._data_dir / FOLDER).mkdir(mode=0o700, exist_ok=True)

    @property
    def names(self) -> list[str]:
        """Names and addresses by which the farm is called, the best one first."""
        return list(self._settings.domain) if self._settings.https == "auto" else find_local_names(self._settings)

    @property
    def url(self) -> str:
        port = self._settings.https_endpoint_port
        name = self.names[0]
        host = f"[{name}]" if ":" in name else name
        return f"https://{host}" if port == 443 else f"https://{host}:{port}"

    @property
    def local_root(self) -> Path | None:
        """File of the local CA's certificate; None for public certificates."""
        return self._data_dir / LOCAL_ROOT if self._settings.https == "internal" else None

    def start(self) -> "subprocess.Popen[bytes]":
        """Starts Caddy. It exits when it can't use its configuration or listen."""
        file = self._data_dir / FOLDER / "Caddyfile"
        file.write_text(self._build_caddyfile())
        command = [str(self._program), "run", "--config", str(file), "--adapter", "caddyfile"]
        return start_in_session(command, self._environment)

    def reload(self, settings: Settings) -> None:
        """Puts changed settings into force; running requests end under the old ones. Raises FarmError."""
        previous, old = self._settings, self._build_caddyfile()
        self._settings = settings
        text = self._build_caddyfile()
        if text == old:
            return
        try:
            status, body = request_on_socket(
                self.sockets.admin, "POST", "/load", text.encode(), "text/caddyfile", timeout=LOAD_SECONDS
            )
        except OSError as error:
            status, body = 0, str(error).encode()
        if status != 200:
            self._settings = previous
            raise FarmError(f"Caddy does not take them: {body.decode(errors='replace').strip()}")

    def is_serving(self) -> bool:
        """Whether it has a certificate for the first of its names."""
        return has_certificate(self._settings, self.names[0])

    def wait_for_certificate(self, is_cancelled: Callable[[], bool]) -> bool:
        """Waits a while for the first name's certificate; False if there is none yet."""
        wait_until(lambda: is_cancelled() or self.is_serving(), CERTIFICATE_SECONDS)
        return self.is_serving()

    def _build_caddyfile(self) -> str:
        return build_caddyfile(self._settings, self.sockets, self.names)


def build_environment(environment: Mapping[str, str], data_dir: Path) -> dict[str, str]:
    """Caddy's: proxies and CA bundles stay, for its requests to certificate authorities."""
    withheld = ("FARM_", "REDIS_URL", "AWS_")
    kept = {key: value for key, value in environment.items() if not key.startswith(withheld)}
    return kept | {"XDG_DATA_HOME": str(data_dir), "XDG_CONFIG_HOME": str(data_dir / FOLDER)}


def find_local_names(settings: Settings) -> list[str]:
    """Names and addresses for which the local CA makes certificates, FARM_DOMAIN first."""
    host = "" if settings.host in ("0.0.0.0", "::") else settings.host
    given = [*settings.domain, *([host] if host and not is_loopback_host(host) else ())]
    own = ["localhost", "127.0.0.1", "::1", socket.gethostname().lower()]
    return list(dict.fromkeys([*given, *own, *(find_addresses() if not host else ())]))


def find_addresses() -> list[str]:
    """The addresses of this machine that others may use."""
    addresses = [address.address for addresses in psutil.net_if_addrs().values() for address in addresses]
    parsed = [ip_address for address in addresses if (ip_address := parse_address(address))]
    return [str(ip_address) for ip_address in parsed if not ip_address.is_link_local]
