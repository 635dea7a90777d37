"""What `./farm up` prints once the farm is ready: its URL, the first secrets, and a command to try it with."""

import shlex
from collections.abc import Callable

from launcher.processes.https.proxy import ReverseProxy


def announce_ready(
    print_line: Callable[[str], None],
    url: str,
    proxy: ReverseProxy | None,
    secrets: list[str],
    is_stopping: Callable[[], bool],
) -> None:
    """Prints it all; waits for the certificate of an HTTPS endpoint, but not when the farm is to stop meanwhile."""
    new_key = next((line.rpartition(" ")[2] for line in secrets if line.startswith("API key")), None)
    api_key = new_key or "$FARM_API_KEY"
    options = "-N"
    print_line(f"ready: {url}/v1")
    if proxy and not proxy.wait_for_certificate(is_stopping):
        print_line("there is no certificate yet; Caddy goes on trying, and the log says what is in its way")
    if proxy and proxy.local_root:
        options = f"-N --cacert {shlex.quote(str(proxy.local_root))}"
        print_line(f"local CA, to be trusted by browsers and programs: {proxy.local_root}")
    for line in secrets:
        print_line(line)
    print_line(f"console: {url}/admin/ (log in with the admin token)")
    body = '{"model":"sim-translate","stream":true,"messages":[{"role":"user","content":"Hello, farm!"}]}'
    header = f'"Authorization: Bearer {api_key}"'
    command = f"curl {options} {url}/v1/chat/completions -H {header} -H 'Content-Type: application/json'"
    print_line(f"try: {command} -d '{body}'")
