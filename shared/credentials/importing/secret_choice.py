"""Chooses the secret among the members of a JSON object, a CSV row or a group of assignments. No I/O."""

import re
from collections.abc import Mapping
from typing import Any

from shared.credentials.kinds import (
    STRUCTURED_KINDS,
    decode_fields,
    encode_client,
    encode_service_account,
    normalise_members,
)

#: Maximum characters of a secret.
MAX_TOKEN_LENGTH = 16_384
#: Kind -> names of its secret, normalised: those that name it, and those that mean it where the others don't occur.
SECRET_NAMES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "refresh_token": (("refreshtoken", "rt"), ("token",)),
    "api_key": (("apikey", "apitoken", "secretkey"), ("key", "token", "secret", "refreshtoken")),
    "client_credentials": (("clientsecret",), ()),
    "service_account": (("privatekey",), ()),
}
#: Names of what lies beside a secret, normalised. None of it is stored.
OTHER_NAMES = frozenset(
    {
        *(
            "email",
            "mail",
            "user",
            "username",
            "login",
            "name",
            "account",
            "accountid",
            "id",
            "userid",
            "note",
            "label",
        ),
        *("password", "pass", "passwd", "pwd", "pw", "recoveryemail", "totp", "2fa", "proxy", "cookie", "status"),
        *("accesstoken", "at", "idtoken", "tokentype", "scope", "expires", "expiresin", "expiresat", "type", "date"),
        *("clientid", "clientsecret", "tenant", "tenantid", "baseurl", "url", "secret"),
    }
)
#: Depth of JSON to which secrets are looked for.
MAX_DEPTH = 8
#: What is plainly no token, and what it is.
NO_TOKEN = (
    (re.compile(r"""[\[\]{}"']"""), "it is a part of JSON that can't be read"),
    (re.compile(r"https?://"), "it is a URL"),
    (re.compile(r"[^@]+@[^@]+\.[A-Za-z]+$"), "it is an address of mail"),
)


def choose_secrets(value: Any, kind: str) -> list[tuple[str, str]]:
    """The secrets in a JSON value, in order, each with '' or with what is wrong with it; [] when it names none."""
    if kind in STRUCTURED_KINDS:
        return find_objects(value, kind)
    strong, weak = SECRET_NAMES[kind]
    found = find_named(value, strong) or find_named(value, weak)
    return [(text, "") for text in found]


def find_named(value: Any, names: tuple[str, ...], depth: int = 0) -> list[str]:
    """The texts that are named so, however deep."""
    if depth > MAX_DEPTH:
        return []
    if isinstance(value, list):
        return [text for item in value for text in find_named(item, names, depth + 1)]
    if not isinstance(value, dict):
        return []
    found: list[str] = []
    members = normalise_members(value)
    named = next((members[name] for name in names if isinstance(members.get(name), str)), "")
    if named.strip():
        found.append(named.strip())
    for member in value.values():
        found += find_named(member, names, depth + 1)
    return found


def find_objects(value: Any, kind: str, depth: int = 0) -> list[tuple[str, str]]:
    """The secrets of a kind that has several parts, from the objects that have them, however deep."""
    if depth > MAX_DEPTH or not isinstance(value, (dict, list)):
        return []
    if isinstance(value, dict):
        members = normalise_members(value)
        # `export --json` writes the stored secret, which is JSON itself, under this name.
        exported = members.get("refreshtoken")
        fields = decode_fields(exported) if isinstance(exported, str) else value
        if found := read_object(fields, kind):
            return [found]
    inner = value.values() if isinstance(value, dict) else value
    return [found for item in inner for found in find_objects(item, kind, depth + 1)]


def read_object(fields: Mapping[str, Any], kind: str) -> tuple[str, str] | None:
    """The secret in an object and what is wrong with it; None when it is no such object."""
    members = normalise_members(fields)
    if kind == "service_account":
        if not isinstance(members.get("privatekey", members.get("key")), str):
            return None
        try:
            return encode_service_account(fields), ""
        except ValueError as error:
            return "", str(error)
    client_id, client_secret = members.get("clientid"), members.get("clientsecret", members.get("secret"))
    if not isinstance(client_secret, str):
        return None
    if not isinstance(client_id, str) or not client_id.strip() or not client_secret.strip():
        return "", "there is no client id with its secret in it"
    return encode_client(client_id.strip(), client_secret.strip()), ""


def find_problem(secret: str, kind: str) -> str:
    """Why a text is no secret of the kind that can be sent, '' when it is one.

    Tokens are printable ASCII (RFC 6749 appendix A.17) without white space. Others, with a typographic dash from a
    copied text, say, can't be sent in a header and would be refused in a body.
    """
    if not secret or len(secret) > MAX_TOKEN_LENGTH:
        return f"it is longer than {MAX_TOKEN_LENGTH} characters" if secret else "it is empty"
    if kind in STRUCTURED_KINDS:
        return ""
    if not is_token(secret):
        has_space = any(character.isspace() for character in secret)
        return "it has white space in it" if has_space else "it has characters that no token has"
    return next((what for pattern, what in NO_TOKEN if pattern.match(secret)), "")


def is_token(text: str) -> bool:
    """Whether it can be sent: it is not looked at for what else it might be."""
    return 0 < len(text) <= MAX_TOKEN_LENGTH and text.isascii() and text.isprintable() and " " not in text
