"""Talks to systemd when it has started the farm (sd_notify(3), systemd.exec(5))."""

import os
import socket
import sys
from collections.abc import MutableMapping

#: Variable with the address of the socket that takes notifications.
NOTIFY_VARIABLE = "NOTIFY_SOCKET"
#: Variable with device and inode of the journal's stream, set when standard output goes there.
JOURNAL_VARIABLE = "JOURNAL_STREAM"


class ServiceManager:
    """systemd, or nobody: then nothing is sent."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        """Takes the address out of the environment: children are not to report in this process's name."""
        address = environ.pop(NOTIFY_VARIABLE, "")
        # An abstract socket is written with @ (unix(7)).
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def report_ready(self) -> None:
        """Says that the farm serves. What can't be told is no reason to stop."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as client:
                client.sendto(b"READY=1", self._address)
        except OSError as error:
            print(f"farm: can't tell the service manager: {error}", file=sys.stderr, flush=True)


def is_output_kept(environ: MutableMapping[str, str] = os.environ) -> bool:
    """Whether standard output goes to the journal, where a secret would stay readable."""
    stream = environ.get(JOURNAL_VARIABLE, "")
    if not stream:
        return False
    try:
        status = os.fstat(sys.stdout.fileno())
    except (OSError, ValueError):
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"
