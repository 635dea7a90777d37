"""What the simulator's token endpoint asks of a request beside its grant. No I/O."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

from simulator.accounts import TokenRefused
from simulator.http_connection import Request
from simulator.token_endpoint.credential_kinds import check_client_assertion

#: Path of the token endpoint without a name, and before the names of others.
TOKEN_PATH = "/oauth/token"  # noqa: S105
JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@dataclass(frozen=True)
class TokenRules:
    """By default the endpoint takes any client, or none, and responds with JSON."""

    #: How the client must authenticate: `basic`, `body` or `private_key_jwt`; '' for any way, or not at all.
    auth: str = ""
    #: The client that must, and its secret or, with `private_key_jwt`, its public key (PEM).
    client_id: str = ""
    client_secret: str = ""
    client_key: str = ""
    #: Parameters that a request must have, with their values.
    parameters: Mapping[str, str] = field(default_factory=dict)
    #: Whether responses are form-encoded.
    form: bool = False

    def check_parameters(self, fields: Mapping[str, Any]) -> None:
        """Raises TokenRefused with `invalid_target` (RFC 8707) when one is missing or another one."""
        if any(fields.get(name) != value for name, value in self.parameters.items()):
            raise TokenRefused("invalid_target")

    def find_client(self, request: Request, fields: Mapping[str, Any]) -> tuple[str, str]:
        """Client id and secret, by Basic or in the body, as the rule wants. Raises TokenRefused."""
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme == "Basic" and self.auth in ("", "basic"):
            client_id, _, secret = base64.b64decode(encoded).decode().partition(":")
            return unquote_plus(client_id), unquote_plus(secret)
        if self.auth in ("", "body"):
            return str(fields.get("client_id", "")), str(fields.get("client_secret", ""))
        raise TokenRefused("invalid_client")

    def check_client(self, request: Request, fields: Mapping[str, Any]) -> None:
        """Raises TokenRefused with `invalid_client` unless the client authenticates as the rule wants."""
        if self.auth == "private_key_jwt":
            assertion = str(fields.get("client_assertion", ""))
            check_client_assertion(assertion, self.client_id, self.client_key, token_audiences(request))
        elif self.auth and self.find_client(request, fields) != (self.client_id, self.client_secret):
            raise TokenRefused("invalid_client")


def token_audiences(request: Request) -> set[str]:
    """The URLs of the token endpoint, the one that was asked, that an assertion may be for."""
    host = request.headers.get("host", "")
    return {f"{scheme}://{host}{request.path}" for scheme in ("http", "https")}
