"""The simulator's accounts by their API keys, OAuth clients and service accounts. No I/O.

Like its refresh tokens these are computed from the seed, so a restarted simulator still accepts them.
"""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_public_key

from simulator.accounts import Accounts, SimulatedAccount, TokenRefused

CLIENT_PREFIX, EMAIL_SUFFIX = "sim-client-", "@accounts.simulator"


def client_secret(accounts: Accounts, number: int) -> str:
    return f"sim-secret-{number}-{accounts.sign(f'secret{number}')}"


def client_pair(accounts: Accounts, number: int) -> str:
    """Client id and secret of an account's own OAuth client (RFC 6749 section 4.4), as `id:secret`."""
    return f"{CLIENT_PREFIX}{number}:{client_secret(accounts, number)}"


def derive_key(accounts: Accounts, number: int) -> ec.EllipticCurvePrivateKey:
    digest = hashlib.sha512(f"{accounts.seed}/{number}".encode()).digest()
    return ec.derive_private_key(int.from_bytes(digest[:31], "big") + 1, ec.SECP256R1())


def service_account_file(accounts: Accounts, number: int, token_url: str = "") -> str:
    """The key file of a service account, as JSON in one line; without a URL it names no token endpoint."""
    pem = derive_key(accounts, number).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    fields = {"type": "service_account", "client_email": f"robot-{number}{EMAIL_SUFFIX}", "private_key": pem}
    return json.dumps({**fields, "private_key_id": f"key-{number}", **({"token_uri": token_url} if token_url else {})})


def list_secrets(accounts: Accounts, kind: str, token_url: str = "") -> list[str]:
    """Each account's credential of a kind (FARM_CREDENTIAL_KIND), one line each, to seed a farm with."""
    numbers = range(accounts.count)
    if kind == "api_key":
        return [accounts.api_key(number) for number in numbers]
    if kind == "client_credentials":
        return [client_pair(accounts, number) for number in numbers]
    if kind == "service_account":
        return [service_account_file(accounts, number, token_url) for number in numbers]
    return accounts.first_refresh_tokens()


def authenticate_client(accounts: Accounts, client_id: str, secret: str) -> SimulatedAccount:
    """The account of an OAuth client. Raises TokenRefused with `invalid_client`."""
    number = client_id.removeprefix(CLIENT_PREFIX)
    if not number.isdigit() or int(number) >= accounts.count:
        raise TokenRefused("invalid_client")
    if not hmac.compare_digest(secret.encode(), client_secret(accounts, int(number)).encode()):
        raise TokenRefused("invalid_client")
    return accounts.find(int(number), "invalid_client")


def authenticate_service_account(accounts: Accounts, assertion: str, audiences: set[str]) -> SimulatedAccount:
    """The account of a signed assertion (RFC 7523 section 3). Raises TokenRefused with `invalid_grant`."""
    claims = read_claims(assertion)
    number = str(claims.get("iss", "")).removeprefix("robot-").removesuffix(EMAIL_SUFFIX)
    if not number.isdigit() or int(number) >= accounts.count:
        raise TokenRefused("invalid_grant")
    check_assertion(assertion, derive_key(accounts, int(number)).public_key(), audiences, "invalid_grant")
    return accounts.find(int(number), "invalid_grant")


def check_client_assertion(assertion: str, client_id: str, public_pem: str, audiences: set[str]) -> None:
    """Checks a client's assertion (`private_key_jwt`, RFC 7523). Raises TokenRefused with `invalid_client`."""
    claims = read_claims(assertion)
    if not public_pem or claims.get("iss") != client_id or claims.get("sub") != client_id:
        raise TokenRefused("invalid_client")
    check_assertion(assertion, load_pem_public_key(public_pem.encode()), audiences, "invalid_client")


def read_claims(assertion: str) -> dict[str, Any]:
    try:
        claims = json.loads(decode_part(assertion.split(".")[1]))
    except (ValueError, IndexError):
        return {}
    return claims if isinstance(claims, dict) else {}


def check_assertion(assertion: str, key: Any, audiences: set[str], code: str) -> None:
    """Checks signature, times and audience. Raises TokenRefused with that code."""
    claims, now = read_claims(assertion), time.time()
    signed, _, signature = assertion.rpartition(".")
    is_timely = claims.get("iat", now + 1) <= now < claims.get("exp", 0) <= now + 3600
    if not is_timely or claims.get("aud") not in audiences:
        raise TokenRefused(code)
    try:
        verify(key, signed.encode(), decode_part(signature))
    except (InvalidSignature, ValueError):
        raise TokenRefused(code) from None


def verify(key: Any, signed: bytes, signature: bytes) -> None:
    """Verifies RS256 or ES256. Raises InvalidSignature, ValueError."""
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, signed, padding.PKCS1v15(), SHA256())
        return
    assert isinstance(key, ec.EllipticCurvePublicKey)
    r, s = (int.from_bytes(part, "big") for part in (signature[:32], signature[32:]))
    key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(SHA256()))


def decode_part(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
