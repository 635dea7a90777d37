"""Sign-ins against the simulator, carried out in this process."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from redis import Redis

from shared import keys
from shared.credentials.records import CredentialRecord
from shared.credentials.store import Credentials
from shared.credentials.unsealing import Unsealer
from shared.observability.counters import Counters
from shared.protocol.credential_operations import CredentialOperation
from shared.settings.schema import PoolSettings, Settings
from shared.sign_in.sign_in import ANSWER_OPERATION, BEGIN_OPERATION, SignIn
from shared.sign_in.sign_ins import SignIns
from tests import internals
from tests.upstream import Upstream
from tests.waiting import eventually
from workers.credentials.token_endpoint.client import TokenEndpoint
from workers.credentials.token_store import TokenStore
from workers.sign_in.accounts import Accounts
from workers.sign_in.provider import Provider
from workers.sign_in.runner import SignInRunner
from workers.upstream.client import create_shared_session

REDIRECT_URI = "http://127.0.0.1:1/callback"


class SignInHarness:
    """The sign-ins of one process, and an owner of accounts who decides on the simulator's pages."""

    def __init__(self, redis: Redis, unsealer: Unsealer, upstream: Upstream, **pool: Any) -> None:
        self.redis, self.upstream = redis, upstream
        defaults = {"upstream_url": upstream.url, "token_url": upstream.token_url, "issuer": upstream.base}
        self.pool = PoolSettings(**{**defaults, "client_id": "farm", **pool})
        session = create_shared_session(upstream.token_url, 4)
        self.endpoint = TokenEndpoint(self.pool, session, self.find_token_url)
        self.provider = Provider(self.pool, self.endpoint, session)
        self.token_store = TokenStore(redis, unsealer, Counters())
        self.accounts = Accounts(redis, self.token_store, lambda _, token: self.provider.fetch_identity(token))
        self.settings = Settings(pools=(self.pool,))
        self.unsealer = unsealer
        self.sign_ins = SignIns(redis)
        self.runners: list[SignInRunner] = []
        self.runner = self.build_runner("here")

    def find_token_url(self) -> str:
        return self.provider.find_token_url()

    def build_runner(self, process_id: str, predecessor: str = "") -> SignInRunner:
        """The sign-ins of another process."""
        providers = {"default": self.provider}
        parts = (self.settings, self.redis, self.unsealer, self.accounts, providers)
        runner = SignInRunner(*parts, process_id, predecessor)
        self.runners.append(runner)
        return runner

    def close(self) -> None:
        """Waits for the polls, whose last step comes after the end that tests see."""
        eventually(lambda: not any(self.redis.keys(keys.sign_in_poll("*"))) or self._cancel_all())
        for runner in self.runners:
            internals.join_polls(runner)

    def _cancel_all(self) -> bool:
        for sign_in_id in self.sign_ins.list_unfinished():
            self.sign_ins.fail(sign_in_id, "cancelled", "the test is over")
        return False

    def begin(self, flow: str = "browser", **fields: str) -> SignIn:
        sign_in = self.sign_ins.create("default", flow, REDIRECT_URI if flow == "browser" else "", **fields)
        self.runner.run_operation(CredentialOperation("default", sign_in.id, BEGIN_OPERATION))
        self.runner.start_polls()
        return self.sign_ins.get(sign_in.id)

    def consent(self, sign_in: SignIn, account: int = 0, decision: str = "allow") -> dict[str, str]:
        """Decides on the consent page; returns what the browser comes back with."""
        page, _, query = sign_in.url.partition("?")
        form = {"request": query, "account": str(account), "decision": decision}
        response = requests.post(page, data=form, allow_redirects=False, timeout=30)
        return dict(parse_qsl(urlsplit(response.headers["location"]).query))

    def answer(self, sign_in: SignIn, answer: dict[str, str]) -> SignIn:
        """Comes back with the browser, as the front has it."""
        assert self.sign_ins.submit(self.sign_ins.find_by_state(answer["state"]).id, answer)
        self.runner.run_operation(CredentialOperation("default", sign_in.id, ANSWER_OPERATION))
        return self.sign_ins.get(sign_in.id)

    def sign_in(self, account: int = 0) -> SignIn:
        """Signs in by browser."""
        sign_in = self.begin()
        return self.answer(sign_in, self.consent(sign_in, account))

    def enter_code(self, sign_in: SignIn, account: int = 0, decision: str = "allow") -> None:
        """Decides on the page of the device grant."""
        form = {"user_code": sign_in.user_code, "account": str(account), "decision": decision}
        assert requests.post(f"{self.upstream.base}/device", data=form, timeout=30).ok

    def wait_for_end(self, sign_in: SignIn) -> SignIn:
        return eventually(lambda: found if (found := self.sign_ins.get(sign_in.id)).state != "pending" else None)

    def credentials(self) -> list[CredentialRecord]:
        return Credentials(self.redis).list(["default"])

    def stored_token(self, credential_id: str) -> str:
        return self.token_store.load(credential_id)[0]


@pytest.fixture
def upstream(simulator: Upstream) -> Upstream:
    simulator.restart()
    simulator.sign_ins(interval=1, device_seconds=600)
    return simulator


@pytest.fixture
def start_sign_ins(redis: Redis, unsealer: Unsealer, upstream: Upstream) -> Iterator[Callable[..., SignInHarness]]:
    """Makes a harness; arguments are settings of its pool."""
    with ExitStack() as harnesses:
        yield lambda **pool: harnesses.enter_context(closing(SignInHarness(redis, unsealer, upstream, **pool)))


@pytest.fixture
def harness(start_sign_ins: Callable[..., SignInHarness]) -> SignInHarness:
    return start_sign_ins()
