"""Checks presented admin tokens, and bans networks that guess them.

Ten wrong tokens ban a network for five minutes. A hundred from all networks together, as a botnet would send them, ban
every network from which no right token has come lately. While a network is banned nothing is compared: the right token
does not open either, so a guesser learns nothing. Login sessions are not affected.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from shared import keys
from shared.api_keys.admin_tokens import AdminToken
from shared.api_keys.store import hash_secret
from shared.decoding import parse_model
from shared.network.ip_addresses import caller_network
from shared.redis_connection.client import register_script

#: Wrong tokens that ban one network, and all that are not known; seconds that they count, and that a ban lasts.
MAX_WRONG_TOKENS, MAX_WRONG_TOKENS_IN_ALL, BAN_SECONDS = 10, 100, 300
#: Seconds that a right token exempts its network from MAX_WRONG_TOKENS_IN_ALL, and after which it is noted again.
KNOWN_SECONDS, KNOWN_RENEWAL_SECONDS = 30 * 86_400, 3600
#: Networks noted at most; those whose last right token is the longest ago are forgotten.
MAX_KNOWN_NETWORKS = 256


@dataclass(frozen=True)
class TokenCheck:
    """Outcome of presenting an admin token."""

    #: The token's record; None if it is wrong or was not compared.
    token: AdminToken | None = None
    #: Wrong tokens of the network within BAN_SECONDS, this one included.
    wrong_tokens: int = 0
    #: Wrong tokens of all networks in the current BAN_SECONDS, this one included.
    wrong_tokens_in_all: int = 0
    #: Seconds until the ban ends; 0 if there is none, and the token was compared.
    banned_for: float = 0.0


class AdminLogin:
    """Compares admin tokens with the stored ones."""

    def __init__(self, redis: Redis) -> None:
        self._check = register_script(redis, Path(__file__).with_suffix(".lua"))

    def check(self, secret: str, address: str) -> TokenCheck:
        """Checks a token presented from `address`, which counts against its network (an IPv6 /64) if it is wrong."""
        network = caller_network(address).removesuffix("/32")
        outcome, value, *in_all = self._check(
            keys=[keys.ADMIN_TOKENS, keys.failed_logins(network), keys.FAILED_LOGINS_IN_ALL, keys.LOGIN_NETWORKS],
            args=[
                *(hash_secret(secret), network, time.time()),
                *(MAX_WRONG_TOKENS, MAX_WRONG_TOKENS_IN_ALL, BAN_SECONDS),
                *(KNOWN_SECONDS, KNOWN_RENEWAL_SECONDS, MAX_KNOWN_NETWORKS),
            ],
        )
        if outcome == b"right":
            return TokenCheck(token=parse_model(AdminToken, value))
        if outcome == b"wrong":
            return TokenCheck(wrong_tokens=int(value), wrong_tokens_in_all=int(in_all[0]))
        return TokenCheck(banned_for=max(1, int(value)) / 1000)
