"""Carries out sign-ins: the front and the command line neither see a token nor call the server.

1. Begin: find the endpoints, and the page that the owner opens. In a worker process.
2. Browser: it comes back with a code, which is exchanged once, in a worker process. Device: poll until the owner has
   decided, in the token refresher, because the tokens in the last answer would go with a process that is killed.
3. Verify the id token, find out whose account it is, store the refresh token durably, and only then report the end.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any

import gevent
from redis import Redis
from redis.exceptions import RedisError

from shared import clock, keys
from shared.credentials.records import mask_account
from shared.credentials.token_origin import compute_token_origin
from shared.credentials.unsealing import Unsealer
from shared.errors import FarmError, NotFound, TokenEndpointDown, TokenError
from shared.protocol.credential_operations import CredentialOperation
from shared.settings.schema import PoolSettings, Settings
from shared.sign_in.sign_in import ANSWER_OPERATION, BEGIN_OPERATION, SignIn, hash_state
from shared.sign_in.sign_ins import SignIns, seal_context
from workers.credentials.token_endpoint.token_response import TokenGrant, parse_token_response
from workers.sign_in import authorization_code, device_grant
from workers.sign_in.accounts import Accounts
from workers.sign_in.errors import SignInFailed
from workers.sign_in.identity import Identity, find_identity, read_claims
from workers.sign_in.metadata import Endpoints
from workers.sign_in.poll_lock import PollLock
from workers.sign_in.provider import Provider

log = logging.getLogger("farm.sign_in")
OPERATIONS = (BEGIN_OPERATION, ANSWER_OPERATION)


class SignInRunner:
    """The sign-ins of one process."""

    def __init__(
        self,
        settings: Settings,
        redis: Redis,
        unsealer: Unsealer,
        accounts: Accounts,
        providers: Mapping[str, Provider],
        process_id: str,
        predecessor: str = "",
    ) -> None:
        """`predecessor`: the dead process that this one replaces, whose polls it goes on with at once."""
        self._settings = settings
        self._redis = redis
        self._unsealer = unsealer
        self._accounts = accounts
        self._providers = providers
        self._poll_lock = PollLock(redis, process_id, predecessor)
        self._sign_ins = SignIns(redis)
        self._polls: dict[str, gevent.Greenlet] = {}
        #: Sign-ins that wait for their next poll.
        self._between_polls: set[str] = set()

    def run_operation(self, operation: CredentialOperation) -> dict[str, Any]:
        """Begins a sign-in, or goes on with a browser's answer; returns `ok` and, on failure, `error`."""
        try:
            sign_in = self._sign_ins.get(operation.credential_id)
            self._run(sign_in, operation.kind)
        except SignInFailed as error:
            self._fail(operation.credential_id, operation.pool, error)
            return {"ok": False, "error": str(error)}
        except FarmError as error:
            failed = SignInFailed(getattr(error, "code", "") or "server_error", str(error))
            self._fail(operation.credential_id, operation.pool, failed)
            return {"ok": False, "error": str(error)}
        return {"ok": True}

    def _run(self, sign_in: SignIn, kind: str) -> None:
        if sign_in.state != "pending":
            raise NotFound(f"the sign-in is {sign_in.state}")
        if sign_in.pool not in self._providers:
            raise SignInFailed("not_configured", f"no pool {sign_in.pool!r}")
        pool = self._settings.pool(sign_in.pool)
        if kind == ANSWER_OPERATION:
            self._exchange_code(sign_in, pool)
        elif sign_in.flow == "device":
            self._begin_device(sign_in, pool)
        else:
            self._begin_browser(sign_in, pool)

    def _fail(self, sign_in_id: str, pool: str, error: SignInFailed) -> None:
        if self._sign_ins.fail(sign_in_id, error.code, str(error), error.state):
            extra = {"action": "sign_in_failed", "pool": pool, "reason": error.code}
            log.warning("nobody was signed in: %s", error, extra=extra)

    def _find_endpoints(self, pool: PoolSettings) -> Endpoints:
        if (kind := pool.credential_kind) != "refresh_token":
            raise SignInFailed("not_configured", f"a sign-in brings a refresh token, and the pool takes {kind}")
        if not pool.client_id:
            raise SignInFailed("not_configured", "FARM_CLIENT_ID is not set: sign-ins need your own OAuth client")
        return self._providers[pool.name].find_endpoints()

    def _begin_browser(self, sign_in: SignIn, pool: PoolSettings) -> None:
        endpoints = self._find_endpoints(pool)
        if not (endpoints.authorize_url and endpoints.token_url):
            raise SignInFailed("not_configured", "set FARM_ISSUER, or FARM_AUTHORIZE_URL and FARM_TOKEN_URL")
        challenge = authorization_code.create_challenge()
        redirect_uri = (self._redis.hget(keys.sign_in(sign_in.id), "redirect_uri") or b"").decode()
        url = authorization_code.build_authorize_url(pool, endpoints, redirect_uri, challenge)
        digest = hash_state(challenge.state)
        lifetime = max(1, int(sign_in.expires_at - clock.now()))
        self._redis.set(keys.sign_in_state(digest), sign_in.id, ex=lifetime)
        kept = {"verifier": challenge.verifier, "nonce": challenge.nonce, "redirect_uri": redirect_uri}
        self._sign_ins.change(sign_in.id, url=url, oauth_state=digest, secrets=self._seal(sign_in, kept))

    def _begin_device(self, sign_in: SignIn, pool: PoolSettings) -> None:
        endpoints = self._find_endpoints(pool)
        if not (endpoints.device_url and endpoints.token_url):
            raise SignInFailed("not_configured", "set FARM_ISSUER, or FARM_DEVICE_URL and FARM_TOKEN_URL")
        scope = authorization_code.choose_scope(pool)
        # The client's id is a part of this request even where the client authenticates by HTTP Basic.
        fields = {"client_id": pool.client_id, **({"scope": scope} if scope else {})}
        response = self._providers[pool.name].request(fields, endpoints.device_url)
        authorization = device_grant.read_authorization(response)
        expires_at = clock.now() + authorization.lifetime
        kept = {"device_code": authorization.device_code, "interval": authorization.interval}
        self._sign_ins.change(
            sign_in.id,
            url=authorization.url,
            user_code=authorization.user_code,
            expires_at=expires_at,
            secrets=self._seal(sign_in, kept),
        )
        self._redis.zadd(keys.SIGN_INS, {sign_in.id: expires_at})

    def _exchange_code(self, sign_in: SignIn, pool: PoolSettings) -> None:
        kept, answer = self._unseal(sign_in.id, "secrets"), self._unseal(sign_in.id, "answer")
        endpoints = self._find_endpoints(pool)
        code = authorization_code.read_code(answer, endpoints)
        fields = authorization_code.build_code_request(code, kept["verifier"], kept["redirect_uri"])
        response = self._providers[pool.name].request({"client_id": pool.client_id, **fields}, endpoints.token_url)
        try:
            grant = parse_token_response(response)
        except TokenEndpointDown:
            raise
        except TokenError as error:
            raise authorization_code.build_refusal(error.code) from None
        self._complete(sign_in, pool, endpoints, grant, kept["nonce"])

    # Device grant

    @property
    def poll_count(self) -> int:
        """For how many sign-ins this process polls."""
        return len(self._polls)

    def start_polls(self) -> None:
        """Polls for sign-ins that no process polls for: new ones, and those of one that has ended. To be repeated."""
        for sign_in_id in self._sign_ins.list_unfinished():
            if sign_in_id not in self._polls:
                self._start_polling(sign_in_id)

    def hand_over_polls(self) -> None:
        """Ends the polls of this process, for another one to go on. One that is on its way may bring the tokens."""
        for sign_in_id in list(self._between_polls):
            self._polls[sign_in_id].kill()

    def _start_polling(self, sign_in_id: str) -> None:
        """Polls in the background, if the sign-in waits for that and no other process does."""
        fields = self._redis.hmget(keys.sign_in(sign_in_id), "flow", "state", "user_code")
        if fields[:2] != [b"device", b"pending"] or not fields[2]:
            return
        if self._poll_lock.take(sign_in_id):
            self._polls[sign_in_id] = gevent.spawn(self._poll, sign_in_id)

    def _poll(self, sign_in_id: str) -> None:
        try:
            self._poll_until_decided(sign_in_id)
        except RedisError as error:
            log.warning("a sign-in is polled later: %s", error, extra={"action": "redis_lost"})
        finally:
            del self._polls[sign_in_id]
            self._poll_lock.release(sign_in_id)

    def _poll_until_decided(self, sign_in_id: str) -> None:
        sign_in = self._sign_ins.get(sign_in_id)
        pool = self._settings.pool(sign_in.pool)
        try:
            kept = self._unseal(sign_in_id, "secrets")
            grant = self._wait_for_grant(sign_in_id, pool, kept["device_code"], float(kept["interval"]))
            if grant is not None:
                self._complete(sign_in, pool, self._find_endpoints(pool), grant, "")
        except SignInFailed as error:
            self._fail(sign_in_id, sign_in.pool, error)
        except FarmError as error:
            self._fail(sign_in_id, sign_in.pool, SignInFailed("server_error", str(error)))

    def _wait_for_grant(
        self, sign_in_id: str, pool: PoolSettings, device_code: str, interval: float
    ) -> TokenGrant | None:
        """Polls until the owner has decided.

        Returns None when the sign-in is over by then, or another process polls, because this one stood still for too
        long. Raises SignInFailed.
        """
        fields = {"client_id": pool.client_id, **device_grant.build_poll(device_code)}
        token_url = self._find_endpoints(pool).token_url
        while self._poll_lock.take(sign_in_id, interval):
            self._pause(sign_in_id, interval)
            if self._sign_ins.get(sign_in_id).state != "pending":
                return None
            try:
                response = self._providers[pool.name].request(fields, token_url)
            except TokenEndpointDown:
                interval = device_grant.back_off(interval)
                continue
            grant, interval = device_grant.judge_poll(response, interval)
            if grant is not None:
                return grant
        return None

    def _pause(self, sign_in_id: str, interval: float) -> None:
        self._between_polls.add(sign_in_id)
        try:
            gevent.sleep(interval)
        finally:
            self._between_polls.discard(sign_in_id)

    # The end

    def _complete(
        self, sign_in: SignIn, pool: PoolSettings, endpoints: Endpoints, grant: TokenGrant, nonce: str
    ) -> None:
        """Stores the account, then reports the end. Raises SignInFailed."""
        if grant.unusable:
            raise SignInFailed("unusable_access_token", grant.unusable)
        identity = self._identify(pool, endpoints, grant, nonce)
        if not grant.refresh_token:
            message = "the token endpoint issued no refresh token: FARM_SCOPE may need `offline_access`"
            raise SignInFailed("no_refresh_token", message)
        origin = compute_token_origin(pool)
        credential_id, outcome = self._accounts.add(pool.name, grant, identity, sign_in.label, origin)
        account = mask_account(identity.account) if identity else ""
        end = {"state": "done", "credential_id": credential_id, "outcome": outcome, "account": account}
        self._sign_ins.change(sign_in.id, **end)
        extra = {"action": "signed_in", "pool": pool.name, "credential_id": credential_id, "reason": outcome}
        log.info("an account has signed in", extra=extra)

    def _identify(self, pool: PoolSettings, endpoints: Endpoints, grant: TokenGrant, nonce: str) -> Identity | None:
        """Whose account it is. An id token must be valid where the pool has an issuer. Raises SignInFailed."""
        identity = None
        if grant.id_token:
            identity = find_identity(self._verify(pool, endpoints, grant.id_token, nonce))
        identity = identity or find_identity(read_claims(grant.access_token))
        if identity and identity.account:
            return identity
        try:
            asked = self._providers[pool.name].fetch_identity(grant.access_token)
        except OSError as error:
            log.info("no userinfo: %s", error, extra={"action": "account_unknown", "pool": pool.name})
            return identity
        is_other = identity and asked and asked.subject != identity.subject
        return identity if is_other else asked or identity

    def _verify(self, pool: PoolSettings, endpoints: Endpoints, id_token: str, nonce: str) -> dict[str, Any]:
        """The claims of an id token; without an issuer nobody says which key to verify it by."""
        if not endpoints.issuer:
            claims = read_claims(id_token)
            if nonce and claims.get("nonce") not in (None, nonce):
                raise SignInFailed("invalid_id_token", "the id token belongs to another request (nonce)")
            return claims
        # Not at the top: see its module.
        from workers.sign_in.id_token import verify_id_token  # noqa: PLC0415

        issued_keys = self._providers[pool.name].fetch_keys(endpoints)
        return verify_id_token(id_token, issued_keys, endpoints.issuer, pool.client_id, nonce)

    def _seal(self, sign_in: SignIn, kept: Mapping[str, Any]) -> bytes:
        return self._unsealer.sealer.seal(json.dumps(kept), seal_context(sign_in.id))

    def _unseal(self, sign_in_id: str, field: str) -> dict[str, Any]:
        sealed = self._redis.hget(keys.sign_in(sign_in_id), field)
        if not sealed:
            raise SignInFailed("invalid_answer", "the sign-in has not begun, or is over")
        values: dict[str, Any] = json.loads(self._unsealer.unseal(sealed, seal_context(sign_in_id)))
        return values
