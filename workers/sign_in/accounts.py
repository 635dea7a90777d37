"""Keeps one credential per account: a newer token of a known account replaces its token."""

import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis import Redis

from shared import clock, keys, names
from shared.credentials.records import CHANGE_STATE
from shared.credentials.sealing import fingerprint
from shared.errors import LeaseLost
from shared.redis_connection.client import register_script
from shared.redis_connection.retry import retry_forever
from workers.credentials.leases import Lease
from workers.credentials.token_endpoint.token_response import TokenGrant
from workers.credentials.token_store import TokenStore
from workers.sign_in.identity import Identity, find_identity, read_claims

log = logging.getLogger("farm.tokens")


class AccountKnown(LeaseLost):
    """Raised when a credential turns out to be a double: another one has its account, and has its token by now."""


class Accounts:
    """Which credential has which account, in all pools."""

    def __init__(
        self, redis: Redis, store: TokenStore, ask_userinfo: Callable[[str, str], Identity | None] = lambda *_: None
    ) -> None:
        """`ask_userinfo(pool, access token)` asks who the account is where no token says it; OSError: ask again."""
        self._redis = redis
        self._store = store
        self._ask_userinfo = ask_userinfo
        self._add_script = register_script(redis, Path(__file__).with_name("add_account.lua"))
        self._record_script = register_script(redis, Path(__file__).with_name("record_account.lua"))
        self._replace_script = register_script(redis, CHANGE_STATE, Path(__file__).with_name("replace_token.lua"))
        #: Credentials whose account has been looked for.
        self._asked: set[str] = set()

    def add(
        self, pool: str, grant: TokenGrant, identity: Identity | None, label: str, token_origin: str
    ) -> tuple[str, str]:
        """Stores the tokens of a sign-in, durably; returns the credential's id and `added` or `replaced`."""
        credential_id, token = secrets.token_hex(5), grant.refresh_token or ""
        now = clock.now()
        digest = fingerprint(token)
        fields: dict[str, Any] = {
            "fingerprint": digest,
            "origin": digest,
            "pool": pool,
            "label": label,
            "token_origin": token_origin,
        }
        fields |= {"sealed": self._store.seal(token, credential_id), "added_at": now, "state_since": now}
        fields |= {"reason": "", "refreshed_at": now, **describe(identity), **self._seal_access(grant, credential_id)}
        script_keys = [keys.fingerprints(pool), keys.credentials(pool), keys.accounts(pool)]
        arguments = [credential_id, digest, identity.digest if identity else "", *flatten(fields)]
        known = self._write(self._add_script, [*script_keys, keys.credential(credential_id)], arguments).decode()
        if not known:
            return credential_id, "added"
        if self._replace(pool, known, grant, token, identity, token_origin):
            return known, "replaced"
        return self.add(pool, grant, identity, label, token_origin)

    def learn(self, lease: Lease, grant: TokenGrant, refresh_token: str) -> None:
        """Finds out whose account a credential is, at its first refresh in this process, before its token is used.

        Raises AccountKnown when another credential of the pool has the account: that one has the token now.
        """
        pool, credential_id = lease.pool, lease.credential_id
        if credential_id in self._asked or names.is_private(pool) or not grant.access_token:
            return
        identity = self._identify(pool, credential_id, grant)
        if identity is None:
            return
        while known := self._record(pool, credential_id, identity):
            if self._replace(pool, known, grant, refresh_token, identity, "", double=credential_id):
                extra = {"action": "account_known", "pool": pool, "credential_id": known, "reason": credential_id}
                log.warning("a double was removed: its account has a credential, which has its token now", extra=extra)
                raise AccountKnown(f"the account is that of credential {known}, which has its token now")
        self._asked.add(credential_id)

    def _identify(self, pool: str, credential_id: str, grant: TokenGrant) -> Identity | None:
        """What the tokens say, else the userinfo endpoint, which is asked once if it answers."""
        for token in (grant.id_token, grant.access_token):
            if token and (identity := find_identity(read_claims(token))):
                return identity
        if self._redis.hexists(keys.credential(credential_id), "identity"):
            self._asked.add(credential_id)
            return None
        try:
            identity = self._ask_userinfo(pool, grant.access_token)
        except OSError as error:
            extra = {"action": "account_unknown", "pool": pool, "credential_id": credential_id}
            log.info("the account is not known yet: %s", error, extra=extra)
            return None
        if identity is None:
            self._asked.add(credential_id)
        return identity

    def _record(self, pool: str, credential_id: str, identity: Identity) -> str:
        """Records the account; returns the id of another credential that has it, '' for none."""
        script_keys = [keys.accounts(pool), keys.credentials(pool), keys.credential(credential_id)]
        fields = describe(identity)
        del fields["identity"]
        known: bytes = retry_forever(
            lambda: self._record_script(keys=script_keys, args=[credential_id, identity.digest, *flatten(fields)]),
            "an account waits to be recorded",
        )
        return known.decode()

    def _replace(
        self,
        pool: str,
        credential_id: str,
        grant: TokenGrant,
        token: str,
        identity: Identity | None,
        token_origin: str,
        double: str = "",
    ) -> bool:
        """Gives a credential the newer token of its account; False if it is gone meanwhile."""
        fields = {**describe(identity), **self._seal_access(grant, credential_id)}
        fields |= {"token_origin": token_origin} if token_origin else {}
        script_keys = [keys.credential(credential_id), keys.credentials(pool), keys.fingerprints(pool)]
        script_keys += [
            keys.history(credential_id),
            keys.credential(double),
            keys.history(double),
            keys.activity(double),
        ]
        sealed = self._store.seal(token, credential_id)
        arguments = [credential_id, sealed, fingerprint(token), clock.now(), double, *flatten(fields)]
        return bool(self._write(self._replace_script, script_keys, arguments))

    def _seal_access(self, grant: TokenGrant, credential_id: str) -> dict[str, Any]:
        """The fields of an access token, so that the worker needs no refresh at first."""
        access = self._store.seal(grant.access_token, credential_id)
        return {"access": access, "access_expires": clock.now() + grant.expires_in}

    def _write(self, script: Any, script_keys: list[str], arguments: list[Any]) -> Any:
        """Runs a script until its write is durable, as that of a rotated token (I4). All of them are idempotent."""
        return retry_forever(
            lambda: self._store.durable_writer.write(
                lambda pipe: script(keys=script_keys, args=arguments, client=pipe)
            )[0],
            "the token of a sign-in waits to be stored",
        )


def describe(identity: Identity | None) -> dict[str, str]:
    """The fields of a credential that say whose it is; {} when that is not known."""
    if identity is None:
        return {}
    names_ = {"issuer": identity.issuer, "subject": identity.subject}
    shown = {"account": identity.account} if identity.account else {}
    return {"identity": identity.digest, **names_, **shown}


def flatten(fields: dict[str, Any]) -> list[Any]:
    return [part for pair in fields.items() for part in pair]
