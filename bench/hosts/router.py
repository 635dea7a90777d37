"""`python -m bench.hosts.router`: joins hosts by a network with delay, loss and partitions, packet by packet.

Each host is a TUN device; the caller moves it into a network namespace. So the hosts' own TCP meets every fault, which
it would not behind a proxy, and no kernel module but `tun` is needed (many kernels have no `tc netem`).
Commands are lines of JSON on stdin, each answered by a line on stdout.
"""

import fcntl
import heapq
import ipaddress
import json
import os
import random
import select
import struct
import sys
import time
from dataclasses import dataclass, field
from typing import Any

#: From <linux/if_tun.h>: IP packets without a header of TUN's own.
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
TUN_DEVICE = "/dev/net/tun"
#: Bytes of the largest packet.
MTU = 1500
#: Bytes 16 to 20 of an IPv4 packet are its destination.
DESTINATION = slice(16, 20)


@dataclass
class Link:
    """Both directions between two hosts."""

    #: Seconds that a packet takes one way.
    delay: float = 0.0
    #: Share of the packets that are lost.
    loss: float = 0.0
    is_cut: bool = False


@dataclass
class Router:
    """Passes packets between the hosts."""

    #: Host -> its device and its IPv4 address.
    devices: dict[str, int] = field(default_factory=dict)
    addresses: dict[bytes, str] = field(default_factory=dict)
    links: dict[frozenset[str], Link] = field(default_factory=dict)
    #: Packets on their way: when they arrive, a serial number, the device, the packet.
    _underway: list[tuple[float, int, int, bytes]] = field(default_factory=list)
    _sent: int = 0
    _draw: random.Random = field(default_factory=lambda: random.Random(1))

    def handle(self, command: dict[str, Any]) -> None:
        """Adds a `host` with its `device` and `address`, or sets the fields of the link `between` two hosts."""
        if "host" in command:
            self.devices[command["host"]] = open_device(command["device"])
            self.addresses[ipaddress.IPv4Address(command["address"]).packed] = command["host"]
        else:
            link = self.links.setdefault(frozenset(command.pop("between")), Link())
            vars(link).update(command)

    def run(self) -> None:
        """Runs until stdin ends."""
        while True:
            timeout = max(0.0, self._underway[0][0] - time.monotonic()) if self._underway else None
            ready, _, _ = select.select([sys.stdin.fileno(), *self.devices.values()], [], [], timeout)
            if sys.stdin.fileno() in ready and not self._read_command():
                return
            for host, device in list(self.devices.items()):
                if device in ready:
                    self.take(host, os.read(device, MTU))
            self.deliver()

    def _read_command(self) -> bool:
        """Handles one command; False when there will be no more."""
        line = os.read(sys.stdin.fileno(), 65_536)
        if line:
            self.handle(json.loads(line))
            os.write(sys.stdout.fileno(), b"\n")
        return bool(line)

    def take(self, sender: str, packet: bytes) -> None:
        receiver = self.addresses.get(packet[DESTINATION])
        if receiver is None:
            return
        link = self.links.get(frozenset((sender, receiver)), Link())
        if link.is_cut or self._draw.random() < link.loss:
            return
        self._sent += 1
        heapq.heappush(self._underway, (time.monotonic() + link.delay, self._sent, self.devices[receiver], packet))

    def deliver(self) -> None:
        now = time.monotonic()
        while self._underway and self._underway[0][0] <= now:
            _, _, device, packet = heapq.heappop(self._underway)
            os.write(device, packet)


def open_device(name: str) -> int:
    """Creates a TUN device; it lives as long as its descriptor."""
    device = os.open(TUN_DEVICE, os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH14x", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


if __name__ == "__main__":
    Router().run()
