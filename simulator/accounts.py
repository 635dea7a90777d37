"""The simulator's accounts and their tokens. No I/O.

A token carries its account and generation and is signed, so a restarted simulator still accepts it.
"""

import contextlib
import hashlib
import hmac
import time
from collections import Counter
from dataclasses import dataclass, field

#: Generations that a token family has: those of one grant, numbered on from the family's number times this.
FAMILY_SIZE = 1_000_000


@dataclass
class SimulatedAccount:
    """One account; by default it serves one request at a time."""

    number: int
    #: Token family -> generation of its refresh token that is valid now; unknown before the family's first refresh.
    generations: dict[int, int] = field(default_factory=dict)
    #: Whether the account's token family was revoked, by a test or by the reuse of a refresh token.
    is_killed: bool = False
    #: Requests in flight.
    in_flight: int = 0
    #: When tokens were last issued, in seconds since the epoch.
    granted_at: float = 0.0
    #: Whether a fault makes the request in flight hang.
    is_hung: bool = False
    #: Access tokens issued before this serial are refused.
    oldest_serial: int = 0
    #: Number of access tokens issued so far.
    serial: int = 0


@dataclass
class TokenGrant:
    """The tokens that one refresh issued."""

    access_token: str
    #: Seconds.
    expires_in: float
    #: None unless refresh tokens are rotated.
    refresh_token: str | None


class TokenRefused(Exception):
    """Raised when a refresh or access token is refused; the text is the OAuth error code."""


@dataclass
class Accounts:
    """All accounts of one simulator."""

    count: int
    seed: str = "farm"
    #: Lifetime of an access token in seconds.
    access_ttl: float = 3600.0
    #: Whether each refresh issues a new refresh token, and the reuse of an old one kills the account.
    rotate: bool = False
    #: Requests that an account serves concurrently.
    slots: int = 1
    counters: Counter[str] = field(default_factory=Counter)
    #: Issue times of grants whose refresh token was lost: the previous refresh token was presented instead.
    lost_grants: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._accounts = {number: SimulatedAccount(number) for number in range(self.count)}
        #: Verified access tokens: account, expiry (seconds since the epoch) and serial.
        self._access_tokens: dict[str, tuple[SimulatedAccount, float, int]] = {}
        #: Requests in flight on all accounts.
        self.in_flight = 0

    @property
    def dead(self) -> int:
        """Number of killed accounts."""
        return sum(account.is_killed for account in self._accounts.values())

    def sign(self, text: str) -> str:
        return hmac.new(self.seed.encode(), text.encode(), hashlib.sha256).hexdigest()[:20]

    def refresh_token(self, number: int, generation: int = 0) -> str:
        return f"sim-rt-{number}-{generation}-{self.sign(f'rt{number}.{generation}')}"

    def first_refresh_tokens(self) -> list[str]:
        """Each account's refresh token of generation 0, to seed a farm with."""
        return [self.refresh_token(number) for number in range(self.count)]

    def api_key(self, number: int) -> str:
        """A static token of the account, which the API takes in place of an access token."""
        return f"sim-key-{number}-{self.sign(f'key{number}')}"

    def find(self, number: int, code: str) -> SimulatedAccount:
        """The account. Raises TokenRefused with the code when it was killed."""
        account = self._accounts[number]
        if account.is_killed:
            self.counters["refused_refreshes"] += 1
            raise TokenRefused(code)
        return account

    def grant(self, account: SimulatedAccount) -> TokenGrant:
        """An access token without a refresh token."""
        self.counters["refreshes"] += 1
        return TokenGrant(self._issue_access_token(account), self.access_ttl, None)

    def refresh(self, token: str) -> TokenGrant:
        """Exchanges a refresh token (RFC 6749 section 6). Raises TokenRefused with `invalid_grant`."""
        self.counters["refreshes"] += 1
        account, generation = self._find_account(token)
        if generation != account.generations.setdefault(generation // FAMILY_SIZE, generation) and self.rotate:
            if not account.is_killed:
                self.lost_grants.append(account.granted_at)
            account.is_killed = True
            self.counters["reused_refresh_tokens"] += 1
        if account.is_killed:
            self.counters["refused_refreshes"] += 1
            raise TokenRefused("invalid_grant")
        return self._issue_tokens(account, generation)

    def sign_in(self, number: int) -> TokenGrant:
        """Issues the tokens of a new grant, whose refresh tokens are a family of their own. Raises TokenRefused."""
        account = self._accounts.get(number)
        if account is None or account.is_killed:
            raise TokenRefused("access_denied")
        self.counters["sign_ins"] += 1
        # The time keeps families apart across restarts.
        generation = time.time_ns() // 1_000_000 * FAMILY_SIZE
        account.generations[generation // FAMILY_SIZE] = generation
        grant = self._issue_tokens(account, generation)
        grant.refresh_token = grant.refresh_token or self.refresh_token(number, generation)
        return grant

    def _find_account(self, token: str) -> tuple[SimulatedAccount, int]:
        """The account and generation of a refresh token. Raises TokenRefused."""
        parts = token.split("-")
        if len(parts) == 5 and parts[2].isdigit() and parts[3].isdigit() and parts[:2] == ["sim", "rt"]:
            number, generation = int(parts[2]), int(parts[3])
            if number in self._accounts and hmac.compare_digest(token, self.refresh_token(number, generation)):
                return self._accounts[number], generation
        self.counters["refused_refreshes"] += 1
        raise TokenRefused("invalid_grant")

    def _issue_tokens(self, account: SimulatedAccount, generation: int) -> TokenGrant:
        refresh_token = None
        if self.rotate:
            family = generation // FAMILY_SIZE
            account.generations[family] += 1
            refresh_token = self.refresh_token(account.number, account.generations[family])
        return TokenGrant(self._issue_access_token(account), self.access_ttl, refresh_token)

    def _issue_access_token(self, account: SimulatedAccount) -> str:
        account.serial += 1
        account.granted_at = time.time()
        expires_at = time.time() + self.access_ttl
        body = f"{account.number}-{int(expires_at * 1000)}-{account.serial}"
        return f"sim-at-{body}-{self.sign('at' + body)}"

    def authorize(self, token: str) -> SimulatedAccount:
        """The account of an access token or API key. Raises TokenRefused when it is unknown, expired or revoked."""
        if token.startswith("sim-key-"):
            return self._find_api_key(token)
        account, expires_at, serial = self._access_tokens.get(token) or self._parse_access_token(token)
        if expires_at < time.time() or serial < account.oldest_serial or account.is_killed:
            self._access_tokens.pop(token, None)
            self.counters["expired_tokens"] += 1
            raise TokenRefused("token_expired")
        return account

    def _find_api_key(self, key: str) -> SimulatedAccount:
        number = key.split("-")[2]
        is_known = number.isdigit() and int(number) in self._accounts
        if is_known and hmac.compare_digest(key, self.api_key(int(number))):
            return self.find(int(number), "invalid_api_key")
        self.counters["unknown_tokens"] += 1
        raise TokenRefused("invalid_api_key")

    def _parse_access_token(self, token: str) -> tuple[SimulatedAccount, float, int]:
        parts = token.split("-")
        if len(parts) == 6 and all(part.isdigit() for part in parts[2:5]):
            body = "-".join(parts[2:5])
            account = self._accounts.get(int(parts[2]))
            if account and hmac.compare_digest(parts[5], self.sign("at" + body)):
                self._access_tokens[token] = (account, int(parts[3]) / 1000, int(parts[4]))
                return self._access_tokens[token]
        self.counters["unknown_tokens"] += 1
        raise TokenRefused("invalid_token")

    def expire_access_tokens(self) -> None:
        """Refuses every access token issued so far."""
        for account in self._accounts.values():
            account.oldest_serial = account.serial + 1

    def kill(self, number: int) -> None:
        """Kills an account, as a logout by its owner would."""
        self._accounts[number].is_killed = True

    def revoke(self, token: str) -> None:
        """Kills the account of a refresh token (RFC 7009); ignores an unknown token."""
        with contextlib.suppress(TokenRefused):
            self._find_account(token)[0].is_killed = True

    def begin_request(self, account: SimulatedAccount) -> bool:
        """Starts a request; returns False, and counts a collision, when the account has no free slot."""
        if account.in_flight >= self.slots:
            self.counters["collisions"] += 1
            self.counters["collisions_with_hung"] += account.is_hung
            return False
        account.in_flight += 1
        self.in_flight += 1
        self.counters["served"] += 1
        self.counters["most_in_flight"] = max(self.counters["most_in_flight"], self.in_flight)
        return True

    def end_request(self, account: SimulatedAccount) -> None:
        account.in_flight -= 1
        self.in_flight -= 1
        account.is_hung = False
