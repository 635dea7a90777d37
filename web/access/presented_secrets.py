"""Finds the API keys that a request presents: as Bearer, and in the headers of Azure's and Anthropic's clients."""

from flask import Request

#: Headers that hold nothing but a key, in order.
KEY_HEADERS = ("api-key", "x-api-key")


def find_secrets(request: Request) -> list[str]:
    """The secrets presented, the Bearer token first (RFC 6750); each once."""
    headers = request.headers
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    bearer = credentials.strip() if scheme.lower() == "bearer" else ""
    secrets = (bearer, *(headers.get(name, "").strip() for name in KEY_HEADERS))
    return list(dict.fromkeys(secret for secret in secrets if secret))
