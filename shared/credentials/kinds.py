"""The kinds of credential (FARM_CREDENTIAL_KIND), and the form in which the secret of each is stored. No I/O.

| kind | its secret | is exchanged by |
| --- | --- | --- |
| `refresh_token` | the refresh token | RFC 6749 section 6 |
| `api_key` | the API key | nothing: it is sent to the upstream as it is |
| `client_credentials` | `client_id` and `client_secret`, as JSON | RFC 6749 section 4.4 |
| `service_account` | `issuer`, `subject`, `private_key`, `key_id` and `audience`, as JSON | RFC 7523 section 2.1 |
"""

import json
from collections.abc import Mapping
from typing import Any, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

Kind = Literal["refresh_token", "api_key", "client_credentials", "service_account"]
KINDS: tuple[Kind, ...] = ("refresh_token", "api_key", "client_credentials", "service_account")
#: Kinds whose secret has several parts.
STRUCTURED_KINDS: tuple[Kind, ...] = ("client_credentials", "service_account")
#: What one credential of the kind is called in messages.
KIND_NAMES: Mapping[str, str] = {
    "refresh_token": "refresh token",
    "api_key": "API key",
    "client_credentials": "client id with its secret",
    "service_account": "service account key",
}
#: Members of a key file that hold each part of a service account's secret, normalised; the first one found counts.
#: Google's names come first, then Zitadel's.
SERVICE_ACCOUNT_MEMBERS: Mapping[str, tuple[str, ...]] = {
    "issuer": ("issuer", "iss", "clientemail", "userid", "clientid"),
    "subject": ("subject", "sub"),
    "private_key": ("privatekey", "key"),
    "key_id": ("privatekeyid", "keyid", "kid"),
    "audience": ("audience", "aud", "tokenuri"),
}


def normalise_name(name: str) -> str:
    """The name of a member in lower case and without quotes, `_`, `-` and spaces."""
    return name.strip().strip("\"'").replace("_", "").replace("-", "").replace(" ", "").lower()


def normalise_members(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The members by their normalised names; the first spelling counts."""
    members: dict[str, Any] = {}
    for name, value in fields.items():
        members.setdefault(normalise_name(name), value)
    return members


def encode_client(client_id: str, client_secret: str) -> str:
    """The secret of a `client_credentials` credential. The same pair always has the same text."""
    return json.dumps({"client_id": client_id, "client_secret": client_secret}, separators=(",", ":"))


def decode_fields(secret: str) -> dict[str, str]:
    """The parts of a secret that is stored as JSON; {} when it is none."""
    try:
        fields = json.loads(secret)
    except ValueError:
        return {}
    return {str(name): str(value) for name, value in fields.items()} if isinstance(fields, dict) else {}


def find_owner(kind: str, secret: str) -> str:
    """The client or service account that a secret belongs to, as one text; '' for kinds whose secret doesn't tell."""
    fields = decode_fields(secret) if kind in STRUCTURED_KINDS else {}
    names = ("client_id",) if kind == "client_credentials" else ("issuer", "subject", "audience")
    return "\n".join((kind, *(fields.get(name, "") for name in names))) if fields else ""


def encode_service_account(fields: Mapping[str, Any]) -> str:
    """The secret of a `service_account` credential, from the members of its key file.

    Raises ValueError, whose message says what is wrong and has nothing of the key.
    """
    members = normalise_members(fields)
    parts = {
        part: next((text for name in names if isinstance(text := members.get(name), str) and text.strip()), "")
        for part, names in SERVICE_ACCOUNT_MEMBERS.items()
    }
    if not parts["issuer"] or not parts["private_key"]:
        raise ValueError("it has no private key with the account that it belongs to")
    try:
        load_pem_private_key(parts["private_key"].encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("its private key can't be read: PEM without a passphrase is needed") from None
    return json.dumps({name: text for name, text in parts.items() if text}, separators=(",", ":"))
