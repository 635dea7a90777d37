"""Hosts on one machine: network namespaces of this measurement's own, joined by the router."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bench.hosts.router import MTU, TUN_DEVICE
from bench.simulator import ROOT

#: The network for benchmarks (RFC 2544); the third byte tells measurements at the same time apart.
PREFIX = "198.18"
#: The host whose network is this machine's own: the clients and the measurement are on it.
HERE = "here"


def find_obstacle() -> str:
    """What is missing for namespaces here, '' for nothing."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need `ip` (the package iproute2)"
    return "" if Path(TUN_DEVICE).exists() else f"network namespaces need {TUN_DEVICE}"


class Network:
    """The hosts and the links between them."""

    def __init__(self, router: "subprocess.Popen[bytes]", hosts: Sequence[str]) -> None:
        self._router = router
        self._prefix = f"{PREFIX}.{os.getpid() % 256}"
        self.hosts = list(hosts)

    def address(self, host: str) -> str:
        return f"{self._prefix}.{self.hosts.index(host) + 1}"

    def namespace(self, host: str) -> str:
        return f"farm-bench-{os.getpid()}-{host}"

    def add(self, host: str) -> None:
        """Adds the namespace, unless it is this machine's, with one device."""
        device = f"fb{os.getpid()}x{self.hosts.index(host)}"
        self._tell(host=host, device=device, address=self.address(host))
        if host == HERE:
            inside: list[str] = []
        else:
            run("ip", "netns", "add", self.namespace(host))
            run("ip", "link", "set", device, "netns", self.namespace(host))
            inside = ["-n", self.namespace(host)]
            run("ip", *inside, "link", "set", "lo", "up")
        run("ip", *inside, "address", "add", f"{self.address(host)}/24", "dev", device)
        run("ip", *inside, "link", "set", device, "mtu", str(MTU), "up")

    def set_link(self, one: str, other: str, **fields: Any) -> None:
        """Sets fields of bench.hosts.router.Link."""
        self._tell(between=[one, other], **fields)

    def start(self, host: str, *command: str, log: IO[str], **environment: str) -> "subprocess.Popen[str]":
        """Starts a process on the host, in a process group of its own."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.namespace(host), *command],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            text=True,
        )

    def _tell(self, **command: Any) -> None:
        assert self._router.stdin is not None
        assert self._router.stdout is not None
        self._router.stdin.write(json.dumps(command).encode() + b"\n")
        self._router.stdin.flush()
        if not self._router.stdout.readline():
            raise RuntimeError("the router has ended")

    def remove(self) -> None:
        """Removes the namespaces; the devices go with the router."""
        for host in self.hosts:
            if host != HERE:
                subprocess.run(["ip", "netns", "delete", self.namespace(host)], check=False, capture_output=True)


@contextmanager
def run_network(*hosts: str) -> Iterator[Network]:
    """Joins these hosts and HERE, without delay at first."""
    command = [sys.executable, "-m", "bench.hosts.router"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as router:
        network = Network(router, [HERE, *hosts])
        try:
            for host in network.hosts:
                network.add(host)
            yield network
        finally:
            router.kill()
            router.wait()
            network.remove()


def run(*command: str) -> None:
    """Runs a command. Raises RuntimeError with what it says when it fails."""
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    if completed.returncode:
        raise RuntimeError(f"{' '.join(command)}: {completed.stderr.strip()}")
