"""Selects what an upstream gets of a caller's query string. No I/O."""

from collections.abc import Collection
from urllib.parse import unquote_plus

from shared.api_keys.store import KEY_PREFIX


def select_query(query: bytes, passed: Collection[str], secrets: Collection[str]) -> str:
    """The parameters named in `passed`, as they came; never one that holds an API key, or one of the `secrets`.

    Some clients send their key as a parameter too: the upstream, its logs and the job's data must not get it.
    """
    parameters = []
    for parameter in query.decode("latin-1").split("&"):
        name, _, value = parameter.partition("=")
        if unquote_plus(name) in passed and not holds_secret(unquote_plus(value), secrets):
            parameters.append(parameter)
    return "&".join(parameters)


def holds_secret(value: str, secrets: Collection[str]) -> bool:
    return value.startswith(KEY_PREFIX) or any(secret in value for secret in secrets)
