"""Verifies id tokens (OpenID Connect Core section 3.1.3.7).

Imported when a sign-in needs it: the library takes 80 ms and 4 MB, of every process that never sees one.
"""

from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, import_key

from workers.sign_in.errors import SignInFailed

#: Signatures by a public key. `none` is no signature, and HS256 would take the public client id's secret for a key.
ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA", "Ed25519"]
#: Seconds by which clocks may differ.
LEEWAY_SECONDS = 120


def verify_id_token(id_token: str, keys: dict[str, Any], issuer: str, client_id: str, nonce: str) -> dict[str, Any]:
    """The claims of an id token that the issuer has signed for this client and request. Raises SignInFailed.

    `nonce` is '' in the device grant, which has none.
    """
    try:
        token = jwt.decode(id_token, load_keys(keys), algorithms=ALGORITHMS)
        registry = jwt.JWTClaimsRegistry(
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": client_id},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce} if nonce else {},
        )
        registry.validate(token.claims)
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise SignInFailed("invalid_id_token", f"the id token is not valid: {type(error).__name__}") from None
    authorized = token.claims.get("azp", client_id)
    if authorized != client_id:
        raise SignInFailed("invalid_id_token", "the id token was issued to another client (azp)")
    return dict(token.claims)


def load_keys(keys: dict[str, Any]) -> KeySet:
    """The keys that can be used; one of an unknown type does not spoil the others. Raises ValueError."""
    usable = []
    for key in keys.get("keys") or []:
        try:
            usable.append(import_key(key))
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    if not usable:
        raise ValueError("no keys")
    return KeySet(usable)
