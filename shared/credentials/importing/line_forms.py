"""Forms of a line with one credential: `refresh_token=…`, `mail----password----token`, a pair, a bare token. No I/O."""

import json
import re
from typing import Any
from urllib.parse import parse_qs

from shared.credentials.importing.secret_choice import OTHER_NAMES, SECRET_NAMES
from shared.credentials.kinds import KIND_NAMES, normalise_name

#: Separators of the fields of a line, the longest first.
SEPARATORS = ("----", "|", "\t", ";", ",", ":")
ASSIGNMENT = re.compile(r"""(?:export\s+|-\s+)?["']?([A-Za-z0-9_-]+)["']?\s*[=:]\s*(\S.*)""")
MAIL_ADDRESS = re.compile(r"[^@\s:|;,]+@[^@\s:|;,]+\.[^@\s:|;,]+")
CLIENT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
#: Characters of the shortest secret that is believed without a name, where it could be a password.
MIN_UNNAMED_LENGTH = 16


def parse_json_line(line: str) -> Any:
    """The JSON object, array or text that the line is; None when it is none."""
    bare = line.rstrip(",;").strip()
    if not bare.startswith(("[", "{", '"')):
        return None
    try:
        return json.loads(bare)
    except (ValueError, RecursionError):
        return None


def read_line(line: str, kind: str) -> tuple[str, str]:
    """The secret of a line that is neither blank nor a JSON object or array; what is wrong with it, '' for nothing."""
    bare = line.rstrip(",;").strip()
    text = parse_json_line(line)
    if isinstance(text, str):
        return text.strip(), ""
    if bare and bare[0] in "'`\"" and bare[0] == bare[-1] and bare.count(bare[0]) == 2:
        return bare[1:-1].strip(), ""
    scheme, _, rest = line.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip(), ""
    for fields in (read_query(line), read_assignments(line)):
        if fields:
            return choose_named(fields, kind)
    return read_fields(line) or (line, "")


def choose_named(fields: dict[str, str], kind: str) -> tuple[str, str]:
    """The secret among named values, and what is wrong with it."""
    strong, weak = SECRET_NAMES[kind]
    secret = next((fields[name] for name in (*strong, *weak) if fields.get(name)), "")
    return secret, "" if secret else f"there is no {KIND_NAMES[kind]} in it"


def read_query(line: str) -> dict[str, str]:
    """The fields of `access_token=…&refresh_token=…`, by normalised names; {} unless a name is known."""
    if "&" not in line:
        return {}
    try:
        fields = parse_qs(line.rpartition("?")[2], max_num_fields=50)
    except ValueError:
        return {}
    return keep_known({normalise_name(name): values[0].strip() for name, values in fields.items()})


def read_assignments(line: str) -> dict[str, str]:
    """The fields of `refresh_token=…`, `REFRESH_TOKEN: "…"`, or several in a line; {} unless a name is known."""
    for separator in (None, ";", ",", "|"):
        pairs = [parse_assignment(part.strip()) for part in line.split(separator) if part.strip()]
        if len(pairs) > 1 and all(name in known_names() for name, _ in pairs):
            return dict(reversed(pairs))
    return keep_known(dict([parse_assignment(line)]))


def parse_assignment(line: str) -> tuple[str, str]:
    """Normalised name and value; ('', '') for another form."""
    match = ASSIGNMENT.fullmatch(line)
    if not match:
        return "", ""
    value = match[2].strip().rstrip(",;").strip()
    is_quoted = len(value) > 2 and value[0] in "\"'" and value[0] == value[-1]
    return normalise_name(match[1]), value[1:-1] if is_quoted else value


def keep_known(fields: dict[str, str]) -> dict[str, str]:
    return fields if known_names().intersection(fields) else {}


def known_names() -> frozenset[str]:
    return OTHER_NAMES.union(*(name for names in SECRET_NAMES.values() for name in names))


def read_fields(line: str) -> tuple[str, str] | None:
    """The token behind a user and a password: the last field that is no client id; None for another form.

    A user may be any text where three fields are separated by `----`. A short field behind a mail address alone is more
    likely its password.
    """
    for separator in SEPARATORS:
        fields = [field.strip() for field in line.split(separator)]
        is_mail = len(fields) > 1 and bool(MAIL_ADDRESS.fullmatch(fields[0]))
        if not is_mail and not (separator == "----" and len(fields) > 2):
            continue
        if separator == ":":
            fields = line.split(":", 2)
        rest = [field for field in fields[1:] if field and not CLIENT_ID.fullmatch(field)]
        if not rest:
            return "", "there is no token behind the address"
        if len(rest) == 1 and len(rest[0]) < MIN_UNNAMED_LENGTH:
            return "", "what is behind the address is too short for a token, and may be a password"
        return rest[-1], ""
    return None


def read_pair(line: str) -> tuple[str, str]:
    """Client id and secret in `id:secret`, `client_id=…&client_secret=…` and the like; ('', '') for another form."""
    fields = read_query(line) or read_assignments(line)
    if fields:
        return fields.get("clientid", ""), fields.get("clientsecret", "")
    for separator in (*SEPARATORS[:-1], None, SEPARATORS[-1]):
        client_id, secret, *_ = [*(part.strip() for part in line.split(separator, 1)), "", ""]
        if client_id and secret:
            return client_id, secret
    return "", ""
