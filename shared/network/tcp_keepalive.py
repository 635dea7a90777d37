"""Finds out by TCP that a peer has vanished: its host is off, or the network between drops packets without a word."""

import socket
from dataclasses import dataclass

#: Linux's name and macOS's.
IDLE_OPTIONS = ("TCP_KEEPIDLE", "TCP_KEEPALIVE")


@dataclass(frozen=True)
class KeepAlive:
    """Seconds of silence before the first probe, seconds between probes, and probes without a reply."""

    idle: int
    interval: int
    probes: int

    @property
    def timeout(self) -> int:
        """Seconds of silence after which the connection breaks."""
        return self.idle + self.interval * self.probes

    def list_options(self) -> dict[int, int]:
        """Option of IPPROTO_TCP -> value (tcp(7)), as far as the system has them; SO_KEEPALIVE enables them."""
        idle_option = next((name for name in IDLE_OPTIONS if hasattr(socket, name)), "")
        named = {idle_option: self.idle, "TCP_KEEPINTVL": self.interval, "TCP_KEEPCNT": self.probes}
        return {getattr(socket, name): value for name, value in named.items() if hasattr(socket, name)}

    def list_options_and_user_timeout(self) -> dict[int, int]:
        """The same, with the timeout for data in flight, which keepalive does not cover; only Linux has that.

        Otherwise data is retransmitted for a quarter of an hour at growing intervals: after a partition it takes as
        long again until the peers talk. A peer that lives but reads nothing for that long breaks the connection too
        (TCP_USER_TIMEOUT, RFC 5482).
        """
        option = getattr(socket, "TCP_USER_TIMEOUT", None)
        return self.list_options() | ({option: 1000 * self.timeout} if option else {})
