"""The network between the hosts of a measurement: packets arrive, late, or never."""

import ipaddress
import os
import shutil
from collections.abc import Iterator

import pytest

from bench.hosts.network import find_obstacle
from bench.hosts.router import Router
from tests.waiting import eventually


def build_packet(destination: str) -> bytes:
    return bytes(16) + ipaddress.IPv4Address(destination).packed


class Host:
    """A host whose device is a pipe."""

    def __init__(self, router: Router, name: str, address: str) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        router.devices[name] = self.writer
        router.addresses[ipaddress.IPv4Address(address).packed] = name

    def receive(self) -> bytes:
        try:
            return os.read(self.reader, 1500)
        except BlockingIOError:
            return b""


@pytest.fixture
def router() -> Router:
    return Router()


@pytest.fixture
def receiver(router: Router) -> Iterator[Host]:
    host = Host(router, "b", "198.18.0.2")
    yield host
    os.close(host.reader)
    os.close(host.writer)


def test_packet_reaches_the_host_that_it_is_for(router: Router, receiver: Host):
    for destination in ("198.18.0.9", "198.18.0.2"):
        router.take("a", build_packet(destination))
    router.deliver()
    assert receiver.receive() == build_packet("198.18.0.2")


@pytest.mark.parametrize("fault", [{"is_cut": True}, {"loss": 1.0}])
def test_cut_and_lossy_links_drop_packets(router: Router, receiver: Host, fault: dict[str, float]):
    router.handle({"between": ["a", "b"], **fault})
    router.take("a", build_packet("198.18.0.2"))
    router.handle({"between": ["b", "a"], "is_cut": False, "loss": 0.0})
    router.deliver()
    assert receiver.receive() == b""
    router.take("a", build_packet("198.18.0.2"))
    router.deliver()
    assert receiver.receive() != b""


def test_delayed_packet_arrives_later(router: Router, receiver: Host):
    router.handle({"between": ["a", "b"], "delay": 3600.0})
    router.take("a", build_packet("198.18.0.2"))
    router.handle({"between": ["a", "b"], "delay": 0.01})
    router.take("a", build_packet("198.18.0.2"))

    def receive() -> bytes:
        router.deliver()
        return receiver.receive()

    assert eventually(receive) == build_packet("198.18.0.2")
    assert receive() == b""


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert find_obstacle() == "network namespaces need root"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert "iproute2" in find_obstacle()
