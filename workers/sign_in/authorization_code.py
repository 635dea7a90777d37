"""The authorization code grant with PKCE (RFC 6749 section 4.1, RFC 7636, OpenID Connect Core section 3.1). No I/O."""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from shared.settings.schema import PoolSettings
from workers.sign_in.errors import SignInFailed
from workers.sign_in.metadata import Endpoints

#: Bytes of randomness in a verifier, a state and a nonce.
RANDOM_BYTES = 32
#: Requested where FARM_SCOPE is unset and the pool has an issuer: an id token, and a refresh token.
DEFAULT_SCOPE = "openid offline_access"


@dataclass(frozen=True, repr=False)
class Challenge:
    """What ties an answer to its request. It has no repr, because it consists of secrets."""

    #: Proves to the token endpoint that it is the same client (PKCE).
    verifier: str
    #: Comes back with the browser, and proves that the answer belongs to this request.
    state: str
    #: Comes back in the id token.
    nonce: str


def create_challenge() -> Challenge:
    return Challenge(*(secrets.token_urlsafe(RANDOM_BYTES) for _ in range(3)))


def compute_code_challenge(verifier: str) -> str:
    """S256 of RFC 7636 section 4.2."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def choose_scope(pool: PoolSettings) -> str:
    return pool.scope or (DEFAULT_SCOPE if pool.issuer else "")


def build_authorize_url(pool: PoolSettings, endpoints: Endpoints, redirect_uri: str, challenge: Challenge) -> str:
    """The page that the owner opens; a query that the endpoint has already is kept (RFC 6749 section 3.1)."""
    base, _, query = endpoints.authorize_url.partition("?")
    scope = choose_scope(pool)
    fields = {"response_type": "code", "client_id": pool.client_id, "redirect_uri": redirect_uri}
    fields |= {"scope": scope} if scope else {}
    fields |= {"state": challenge.state, "code_challenge_method": "S256"}
    fields["code_challenge"] = compute_code_challenge(challenge.verifier)
    if "openid" in scope.split():
        fields["nonce"] = challenge.nonce
        # Without it no refresh token is issued for `offline_access` (OpenID Connect Core section 11).
        fields |= {"prompt": "consent"} if "offline_access" in scope.split() else {}
    return f"{base}?{urlencode({**fields, **dict(parse_qsl(query))})}"


def read_code(answer: Mapping[str, str], endpoints: Endpoints) -> str:
    """The code with which the browser came back. Raises SignInFailed.

    The answer of another authorization server is refused first, whatever it says (RFC 9207 section 2.4).
    """
    issuer = answer.get("iss", "")
    is_foreign = issuer != endpoints.issuer if issuer and endpoints.issuer else endpoints.names_itself and not issuer
    if is_foreign:
        raise SignInFailed("issuer_mismatch", "the answer does not come from the pool's issuer (RFC 9207)")
    if error := answer.get("error"):
        raise build_refusal(error)
    if not answer.get("code"):
        raise SignInFailed("invalid_answer", "the answer has neither a code nor an error")
    return answer["code"]


def build_refusal(code: str) -> SignInFailed:
    """The authorization server's own error, by its code; its description may say anything."""
    code = code if code.isascii() and code.replace("_", "").isalnum() and len(code) <= 64 else "invalid_answer"
    if code == "access_denied":
        return SignInFailed(code, "the owner of the account, or its provider, has refused")
    if code == "expired_token":
        return SignInFailed("expired", "nobody has signed in in time", "expired")
    return SignInFailed(code, f"the authorization server answered {code}")


def build_code_request(code: str, verifier: str, redirect_uri: str) -> dict[str, str]:
    """The token request (RFC 6749 section 4.1.3)."""
    fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
    return {**fields, "code_verifier": verifier}
