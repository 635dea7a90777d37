"""The simulator's accounts and tokens: who may log in, who is busy, who is dead; it knows no HTTP.

Tokens carry their account and generation, signed, so that a simulator that was started anew still honours them.
"""

import contextlib
import hashlib
import hmac
import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Account:
    """One account, which answers one request at a time."""

    number: int
    #: Generation of the refresh token that is valid now; None before the first login.
    generation: int | None = None
    #: Whether a reused refresh token (or a test) has killed the account's family.
    killed: bool = False
    in_flight: int = 0
    #: When its last token was granted, seconds since the epoch.
    granted_at: float = 0.0
    #: Whether its request was told to hang for ever.
    is_hung: bool = False
    #: Access tokens issued before this serial are refused.
    oldest_serial: int = 0
    serial: int = 0


@dataclass
class Grant:
    """An answer of the token endpoint."""

    access_token: str
    expires_in: float
    refresh_token: str | None


class Refused(Exception):
    """Raised when a login or an access token is refused; the text is OAuth's error code."""


@dataclass
class Accounts:
    """All accounts of one simulator."""

    count: int
    seed: str = "farm"
    #: Seconds that an access token lives.
    access_ttl: float = 3600.0
    #: Whether each refresh gives a new refresh token and kills the family when an old one comes again.
    rotate: bool = False
    #: Requests that an account serves at once.
    slots: int = 1
    counters: Counter[str] = field(default_factory=Counter)
    #: When the grants were given whose refresh token never came back, but the one before it did.
    lost_grants: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._accounts = {n: Account(n) for n in range(self.count)}
        self._access: dict[str, tuple[Account, float, int]] = {}

    @property
    def dead(self) -> int:
        """Accounts that were killed, by a test or by a refresh token that came twice."""
        return sum(account.killed for account in self._accounts.values())

    def sign(self, text: str) -> str:
        """A short signature, so that nobody makes up a token."""
        return hmac.new(self.seed.encode(), text.encode(), hashlib.sha256).hexdigest()[:20]

    def refresh_token(self, number: int, generation: int = 0) -> str:
        """The refresh token of an account and generation."""
        return f"sim-rt-{number}-{generation}-{self.sign(f'rt{number}.{generation}')}"

    def first_tokens(self) -> list[str]:
        """The refresh tokens to seed a farm with."""
        return [self.refresh_token(n) for n in range(self.count)]

    def refresh(self, token: str) -> Grant:
        """A login with a refresh token (RFC 6749 section 6). Raises Refused with `invalid_grant`."""
        self.counters["refreshes"] += 1
        account, generation = self._owner(token)
        if account.generation is None:
            account.generation = generation
        if generation != account.generation and self.rotate:
            if not account.killed:
                self.lost_grants.append(account.granted_at)
            account.killed = True
            self.counters["reused_refresh_tokens"] += 1
        if account.killed:
            self.counters["refused_refreshes"] += 1
            raise Refused("invalid_grant")
        return self._grant(account)

    def _owner(self, token: str) -> tuple[Account, int]:
        parts = token.split("-")
        if len(parts) == 5 and parts[2].isdigit() and parts[3].isdigit() and parts[:2] == ["sim", "rt"]:
            number, generation = int(parts[2]), int(parts[3])
            if number in self._accounts and hmac.compare_digest(token, self.refresh_token(number, generation)):
                return self._accounts[number], generation
        self.counters["refused_refreshes"] += 1
        raise Refused("invalid_grant")

    def _grant(self, account: Account) -> Grant:
        account.serial += 1
        account.granted_at = time.time()
        renewed = None
        if self.rotate:
            account.generation = (account.generation or 0) + 1
            renewed = self.refresh_token(account.number, account.generation)
        expires = time.time() + self.access_ttl
        body = f"{account.number}-{int(expires * 1000)}-{account.serial}"
        return Grant(f"sim-at-{body}-{self.sign('at' + body)}", self.access_ttl, renewed)

    def authorize(self, token: str) -> Account:
        """The account of an access token. Raises Refused when it is unknown or has expired."""
        found = self._access.get(token) or self._read_access(token)
        account, expires, serial = found
        if expires < time.time() or serial < account.oldest_serial or account.killed:
            self._access.pop(token, None)
            self.counters["expired_tokens"] += 1
            raise Refused("token_expired")
        return account

    def _read_access(self, token: str) -> tuple[Account, float, int]:
        parts = token.split("-")
        if len(parts) == 6 and all(p.isdigit() for p in parts[2:5]):
            body = "-".join(parts[2:5])
            account = self._accounts.get(int(parts[2]))
            if account and hmac.compare_digest(parts[5], self.sign("at" + body)):
                self._access[token] = (account, int(parts[3]) / 1000, int(parts[4]))
                return self._access[token]
        self.counters["unknown_tokens"] += 1
        raise Refused("invalid_token")

    def expire_all(self) -> None:
        """Refuses every access token issued until now."""
        for account in self._accounts.values():
            account.oldest_serial = account.serial + 1

    def kill(self, number: int) -> None:
        """Kills an account, as its owner's logout would."""
        self._accounts[number].killed = True

    def revoke(self, token: str) -> None:
        """Kills the account of a refresh token (RFC 7009); an unknown token is no error."""
        with contextlib.suppress(Refused):
            self._owner(token)[0].killed = True

    def enter(self, account: Account) -> bool:
        """Begins a request; False, and a collision counted, when the account is busy."""
        if account.in_flight >= self.slots:
            self.counters["collisions"] += 1
            self.counters["collisions_with_hung"] += account.is_hung
            return False
        account.in_flight += 1
        self.counters["served"] += 1
        return True

    def leave(self, account: Account) -> None:
        """Ends a request."""
        account.in_flight -= 1
        account.is_hung = False

    @property
    def in_flight(self) -> int:
        """Requests in flight on all accounts."""
        return sum(account.in_flight for account in self._accounts.values())
