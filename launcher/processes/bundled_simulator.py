"""The bundled simulator: when it may be started, its process, and its credentials.

It is for data dirs without any other credential: a real refresh token is never within its reach.
"""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from redis import Redis

from launcher.processes.process_group import start_in_session
from shared import keys
from shared.credentials.importing.entries import read_entries
from shared.credentials.sealing import fingerprint
from shared.credentials.store import Credentials
from shared.credentials.token_origin import SIMULATOR_ORIGIN
from shared.errors import FarmError
from shared.settings.schema import Settings
from simulator.accounts import Accounts
from simulator.token_endpoint.credential_kinds import list_secrets

#: Number of accounts that the bundled simulator has.
SIMULATED_ACCOUNTS = 20
SIMULATOR_LABEL = "simulator"
#: Client id of sign-ins; it takes any.
SIMULATOR_CLIENT_ID = "token-farm"
SIMULATOR_OPTIONS = (
    *("--accounts", str(SIMULATED_ACCOUNTS), "--rotate"),
    *("--delay", "0.2", "--chunks", "16", "--chunk-delay", "0.04"),
)


@dataclass(frozen=True)
class StoredCredentials:
    """All credentials in Redis, whatever pools are configured, as pairs of pool and id."""

    simulated: list[tuple[str, str]]
    others: list[tuple[str, str]]


def find_credentials(redis: Redis) -> StoredCredentials:
    """Tells the simulator's credentials from all others, by their origin; a label is an operator's to choose."""
    first_tokens = {fingerprint(token) for token in Accounts(SIMULATED_ACCOUNTS).first_refresh_tokens()}
    prefix, stored = keys.credentials(""), StoredCredentials([], [])
    for key in redis.scan_iter(match=f"{prefix}*", count=1000):
        pool = key.decode().removeprefix(prefix)
        for credential_id in Credentials(redis).get_states(pool):
            fields = redis.hmget(keys.credential(credential_id), ("token_origin", "origin", "label"))
            token_origin, imported, label = (value.decode() if value else "" for value in fields)
            # Older versions stored no origin.
            is_old = not token_origin and label == SIMULATOR_LABEL and imported in first_tokens
            is_simulated = token_origin == SIMULATOR_ORIGIN or is_old
            (stored.simulated if is_simulated else stored.others).append((pool, credential_id))
    return stored


def has_upstream(settings: Settings) -> bool:
    """Whether a pool has an upstream, so that the simulator is not needed."""
    return any(pool.upstream_url for pool in settings.pools)


def require_simulator_allowed(settings: Settings, redis: Redis) -> None:
    """Raises FarmError when an upstream is missing but there are real credentials, or settings for them."""
    others = find_credentials(redis).others
    if others:
        raise FarmError(
            f"FARM_UPSTREAM_URL is not set, and this farm has {len(others)} credentials that are not the bundled "
            "simulator's: set it here, or for every shell with `./farm config set FARM_UPSTREAM_URL URL` (and "
            "FARM_TOKEN_URL); to try the simulator, use another FARM_DATA_DIR. Nothing was changed"
        )
    if any(pool.token_url or pool.issuer or pool.refresh_tokens_file for pool in settings.pools):
        names = "FARM_TOKEN_URL, FARM_ISSUER or FARM_REFRESH_TOKENS_FILE"
        raise FarmError(f"{names} is set, but FARM_UPSTREAM_URL is not: set it too")


def import_simulated(redis: Redis, pool: str, kind: str = "refresh_token") -> None:
    """Imports the simulator's accounts into the pool, as credentials of that kind."""
    entries = read_entries(list_secrets(Accounts(SIMULATED_ACCOUNTS), kind), kind)
    for _, credential_id in find_credentials(redis).simulated:
        redis.hset(keys.credential(credential_id), "token_origin", SIMULATOR_ORIGIN)
    Credentials(redis).import_entries(pool, entries, SIMULATOR_LABEL, SIMULATOR_ORIGIN, kind)


def remove_simulated(redis: Redis) -> None:
    """Removes the simulator's credentials: a real upstream is configured now."""
    for pool, credential_id in find_credentials(redis).simulated:
        Credentials(redis).remove(pool, credential_id, "settings")


class SimulatorProcess:
    """The simulator on a free port, which restarts keep."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        #: '' until it has started once.
        self.base_url = ""

    def start(self) -> "subprocess.Popen[bytes]":
        """Starts it and returns once it listens. Raises FarmError."""
        options = ("--port", self.base_url.rpartition(":")[2] or "0", *SIMULATOR_OPTIONS)
        process = start_in_session(
            [sys.executable, "-m", "simulator", *options], self._environment, stdout=subprocess.PIPE
        )
        line = process.stdout.readline().decode() if process.stdout else ""
        base_url = line.strip().rpartition(" ")[2]
        if "http://" not in base_url:
            process.kill()
            process.wait()
            raise FarmError("the simulator does not start")
        self.base_url = base_url
        return process
