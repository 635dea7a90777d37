"""Builds token requests: the grant of each kind of credential, and how the client authenticates.

Grants: RFC 6749 sections 4.4 and 6, RFC 7523 section 2.1. Clients: RFC 6749 section 2.3.1, RFC 7523 section 2.2.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus

from shared.credentials.kinds import decode_fields
from shared.errors import TokenError
from shared.settings.schema import PoolSettings
from workers.credentials.token_endpoint.jwt_signing import sign_assertion

JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
JWT_CLIENT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, repr=False)
class Client:
    """Who asks for a token: the pool's OAuth client, or the credential itself. It has no repr: it contains a secret."""

    id: str = ""
    secret: str = ""


def find_client(pool: PoolSettings, secret: str) -> Client:
    """The client of a token request with this credential's secret."""
    if pool.credential_kind != "client_credentials":
        return Client(pool.client_id, pool.client_secret)
    fields = decode_fields(secret)
    return Client(fields.get("client_id", ""), fields.get("client_secret", ""))


def build_token_request(pool: PoolSettings, secret: str) -> dict[str, Any]:
    """Arguments for requests.post, without the client, by the pool's FARM_CREDENTIAL_KIND and FARM_TOKEN_REQUEST.

    Raises TokenError when a service account's key can't sign.
    """
    if pool.token_request == "bearer":  # noqa: S105
        return {"data": b"", "headers": {"authorization": f"Bearer {secret}"}}
    scope = {"scope": pool.scope} if pool.scope else {}
    fields = {**pool.token_parameters, **build_grant_fields(pool, secret), **scope}
    return {"json": fields} if pool.token_request == "json" else {"data": fields}  # noqa: S105


def build_grant_fields(pool: PoolSettings, secret: str) -> dict[str, str]:
    if pool.credential_kind == "client_credentials":
        return {"grant_type": "client_credentials"}
    if pool.credential_kind == "service_account":
        return {"grant_type": JWT_GRANT, "assertion": sign_for_account(pool, decode_fields(secret))}
    return {"grant_type": "refresh_token", "refresh_token": secret}


def sign_for_account(pool: PoolSettings, account: Mapping[str, str]) -> str:
    """The assertion of a service account. Google reads the scope in it, others beside it."""
    issuer = account.get("issuer", "")
    scope = {"scope": pool.scope} if pool.scope else {}
    audience = account.get("audience") or pool.token_url
    try:
        subject, pem = account.get("subject") or issuer, account.get("private_key", "")
        return sign_assertion(issuer, subject, audience, pem, account.get("key_id", ""), **scope)
    except ValueError as error:
        raise TokenError(f"the service account's key can't sign: {error}", "unusable_key") from None


def list_ways(pool: PoolSettings, client: Client) -> list[str]:
    """The ways in which the client may authenticate, the first one first.

    `plain` is Basic without the form encoding that RFC 6749 section 2.3.1 asks for: many endpoints don't decode it.
    `jwt` is `private_key_jwt`.
    """
    if pool.token_auth == "private_key_jwt":  # noqa: S105
        return ["jwt"]
    if pool.token_request == "bearer" or not (client.id and client.secret):  # noqa: S105
        return ["body"]
    is_same = all(quote_plus(text) == text for text in (client.id, client.secret))
    basic = ["basic"] if is_same else ["basic", "plain"]
    return {"basic": basic, "body": ["body"]}.get(pool.token_auth, ["body", *basic])


def authenticate(arguments: dict[str, Any], pool: PoolSettings, client: Client, way: str) -> dict[str, Any]:
    """The arguments with the client's id and secret, in that way, as a copy. Raises TokenError when it can't sign."""
    if way in ("basic", "plain"):
        encode = quote_plus if way == "basic" else str
        pair = f"{encode(client.id)}:{encode(client.secret)}"
        return {**arguments, "headers": {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}}
    name = "json" if "json" in arguments else "data"
    if not isinstance(arguments[name], dict):
        return dict(arguments)
    fields = {
        "client_id": client.id,
        **(sign_for_client(pool, client) if way == "jwt" else {"client_secret": client.secret}),
    }
    return {**arguments, name: {**arguments[name], **{key: value for key, value in fields.items() if value}}}


def sign_for_client(pool: PoolSettings, client: Client) -> dict[str, str]:
    try:
        assertion = sign_assertion(client.id, client.id, pool.token_url, pool.token_auth_key, pool.token_auth_kid)
    except ValueError as error:
        raise TokenError(f"FARM_TOKEN_AUTH_KEY can't sign: {error}", "unusable_key") from None
    return {"client_assertion_type": JWT_CLIENT, "client_assertion": assertion}
