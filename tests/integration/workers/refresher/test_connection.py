"""Worker processes reach the token refresher over a socket pair, and its successor when it was killed."""

import time
from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event
from redis.exceptions import RedisError

from shared.errors import (
    FarmError,
    ForeignCredential,
    InvalidGrant,
    LeaseLost,
    RefresherDown,
    RefreshPending,
    TokenEndpointDown,
    TokenError,
    TokenRefused,
    WrongSecretKey,
)
from tests import internals
from tests.waiting import eventually
from workers.credentials.refresh_request import RefreshRequest
from workers.refresher import client
from workers.refresher.client import RefresherClient
from workers.refresher.rendezvous import Rendezvous
from workers.refresher.server import RefresherServer
from workers.refresher.wire import decode_result, encode_result
from workers.sign_in.accounts import AccountKnown

REQUEST = RefreshRequest("default", "c1", "a:1", float("inf"), is_forced=True, worker_count=3)


class RecordingRefresher:
    """Records what it is asked for; waits or fails on demand."""

    def __init__(self) -> None:
        self.requests: list[RefreshRequest] = []
        self.finished = 0
        self.go_on = Event()
        self.go_on.set()
        self.failure: Exception | None = None

    def refresh(self, request: RefreshRequest) -> None:
        self.requests.append(request)
        assert self.go_on.wait(60)
        self.finished += 1
        if self.failure is not None:
            raise self.failure


class Link:
    """A client and a server that can be killed and started."""

    def __init__(self) -> None:
        self.rendezvous = Rendezvous()
        self.refresher = RecordingRefresher()
        self.client = RefresherClient(self.rendezvous)
        self.start()

    def start(self) -> None:
        self.server = RefresherServer(self.rendezvous, self.refresher)
        self._running = gevent.spawn(self.server.run)

    def stop_accepting(self) -> None:
        self._running.kill()

    def kill(self) -> None:
        """As the kernel closes the connections of a killed process."""
        self.stop_accepting()
        for end in internals.refresher_connections(self.server):
            end.shutdown(2)


@pytest.fixture
def link() -> Iterator[Link]:
    link = Link()
    yield link
    link.kill()
    link.rendezvous.close()


def test_request_arrives_as_it_was_sent(link: Link):
    link.client.refresh(REQUEST)
    assert link.refresher.requests == [REQUEST]


@pytest.mark.parametrize(
    "failure",
    [
        InvalidGrant("no", "expired"),
        TokenRefused("later", 2.5, is_last=True, code="x", is_in_doubt=True),
        TokenEndpointDown("down", "redirect_302", 7.0),
        TokenError("gone"),
        LeaseLost("lost"),
        ForeignCredential("foreign"),
        AccountKnown("known"),
        WrongSecretKey("wrong"),
        RefreshPending("pending"),
        RedisError("away"),
    ],
)
def test_failure_is_raised_with_its_attributes(link: Link, failure: Exception):
    link.refresher.failure = failure
    with pytest.raises(type(failure)) as caught:
        link.client.refresh(REQUEST)
    assert type(caught.value) is type(failure)
    assert str(caught.value) == str(failure)
    assert isinstance(failure, RedisError) or vars(caught.value) == vars(failure)


def test_unknown_failure_is_a_token_error():
    assert type(decode_result(encode_result(1, FarmError("new")))[1]) is TokenError


def test_requests_of_one_process_do_not_wait_for_each_other(link: Link):
    link.refresher.go_on.clear()
    asking = [gevent.spawn(link.client.refresh, REQUEST) for _ in range(20)]
    eventually(lambda: len(link.refresher.requests) == 20)
    link.refresher.go_on.set()
    gevent.joinall(asking, timeout=30, raise_error=True)
    assert link.server.connection_count == 1


def test_request_is_repeated_to_the_successor_of_a_killed_refresher(link: Link):
    link.refresher.go_on.clear()
    asking = gevent.spawn(link.client.refresh, REQUEST)
    eventually(lambda: link.refresher.requests)
    link.kill()
    gevent.sleep(0.2)
    assert not asking.ready()
    link.refresher.go_on.set()
    link.start()
    asking.get(timeout=30)
    assert len(link.refresher.requests) == 2


def test_refresh_goes_on_when_the_worker_process_is_gone(link: Link):
    link.refresher.go_on.clear()
    gevent.spawn(link.client.refresh, REQUEST)
    eventually(lambda: link.refresher.requests)
    internals.shut_down(link.client.connect())
    eventually(lambda: link.server.connection_count == 0)
    link.refresher.go_on.set()
    eventually(lambda: link.refresher.finished == 1)


def test_worker_waits_for_a_refresher_that_is_down_and_not_for_ever(link: Link, monkeypatch):
    monkeypatch.setattr(client, "TAKEN_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(client, "REFRESH_TIMEOUT_SECONDS", 0.5)
    link.stop_accepting()
    with pytest.raises(RefresherDown) as caught:
        link.client.refresh(REQUEST)
    assert caught.value.code == "no_refresher"
    assert 0 < (since := link.client.down_since) <= time.time()
    with pytest.raises(RefresherDown):
        link.client.refresh(REQUEST)
    assert link.client.down_since == since
    monkeypatch.undo()
    link.start()
    link.client.refresh(REQUEST)
    assert link.client.down_since == 0


def test_refresher_that_hangs_is_not_waited_for_for_ever(link: Link, monkeypatch):
    monkeypatch.setattr(client, "REFRESH_TIMEOUT_SECONDS", 0.3)
    link.refresher.go_on.clear()
    with pytest.raises(RefresherDown):
        link.client.refresh(REQUEST)
    link.refresher.go_on.set()
