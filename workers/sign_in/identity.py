"""Reads who an account is: issuer and subject, from an id token, a userinfo response or a JWT. No I/O."""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.parsing import parse_json_object

#: Characters of an issuer or a subject (OpenID Connect Core section 2 allows 255), and of a name that is shown.
MAX_ID_LENGTH, MAX_ACCOUNT_LENGTH = 500, 200
#: Claims that name an account for people, the best first.
ACCOUNT_CLAIMS = ("email", "preferred_username", "name")


@dataclass(frozen=True)
class Identity:
    """An account at an issuer."""

    issuer: str
    subject: str
    #: E-mail address or name, '' for none.
    account: str = ""

    @property
    def digest(self) -> str:
        """Identifies the account without naming it."""
        return hashlib.sha256(f"{self.issuer}\n{self.subject}".encode()).hexdigest()


def find_identity(claims: Mapping[str, Any], issuer: str = "") -> Identity | None:
    """The account that the claims are about; `issuer` is theirs where they name none, as in userinfo responses."""
    names = claims.get("iss") or issuer, claims.get("sub")
    if not all(isinstance(name, str) and 0 < len(name) <= MAX_ID_LENGTH for name in names):
        return None
    texts = (claims.get(name) for name in ACCOUNT_CLAIMS)
    account = next((clean_text(text) for text in texts if isinstance(text, str) and clean_text(text)), "")
    return Identity(str(names[0]), str(names[1]), account)


def clean_text(text: str) -> str:
    """The text without what could corrupt a terminal."""
    return "".join(filter(str.isprintable, text)).strip()[:MAX_ACCOUNT_LENGTH]


def read_claims(token: str) -> dict[str, Any]:
    """The claims of a JSON Web Token, not verified; {} when the token is none, as most access tokens aren't.

    Who got it from the token endpoint over TLS may believe an id token (OpenID Connect Core section 3.1.3.7, 6). An
    access token is meant for the upstream: what it says identifies the account and permits nothing.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
    except (ValueError, binascii.Error):
        return {}
    return parse_json_object(payload)
