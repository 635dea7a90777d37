"""Finds the error codes in a token response (RFC 6749 section 5.2), wherever vendors put them. No I/O."""

import re
from typing import Any

#: Members of an error object that hold a code, the most specific ones first.
CODE_NAMES = ("code", "errorcode", "error", "type", "status", "reason", "name")
#: Members beside `error` that hold a code.
SIBLING_NAMES = ("suberror", "errorcode", "errcode", "errorcodes", "code", "errortype")
#: Values of such members in a response that is no error.
SUCCESS_CODES = ("0", "200", "ok", "success", "false", "none", "null")
#: A code. Longer ones are no codes, and may hold a token.
CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")


def has_error(fields: dict[str, Any]) -> bool:
    """Whether the response says that it is an error, whatever its status.

    `error` decides. Without it a code is an error only when no access token comes with it. The names of `fields` are in
    lower case and without `_`.
    """
    error = fields.get("error")
    if fields.get("errors") or (error and str(error).strip().lower() not in ("", *SUCCESS_CODES)):
        return True
    if "accesstoken" in fields:
        return False
    codes = [code for name in SIBLING_NAMES for code in find_codes(fields.get(name))]
    return any(code not in SUCCESS_CODES for code in codes)


def find_error_codes(fields: dict[str, Any]) -> list[str]:
    """All codes of an error response, in lower case, the likeliest first."""
    values = [fields.get("error"), fields.get("errors"), *(fields.get(name) for name in SIBLING_NAMES)]
    return [code for value in values for code in find_codes(value)]


def find_codes(value: Any, depth: int = 0) -> list[str]:
    """The codes in a member: a code, an object that has one, or a list of either; [] when it is only a text."""
    if isinstance(value, dict) and depth < 2:
        members = {name.replace("_", "").lower(): member for name, member in value.items()}
        return [code for name in CODE_NAMES for code in find_codes(members.get(name), depth + 1)]
    if isinstance(value, list) and depth < 2:
        return [code for member in value[:5] for code in find_codes(member, depth + 1)]
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if abs(value) < 10**12 else ""
    return [code] if isinstance(value, str) and (code := clean_code(value)) else []


def clean_code(text: str) -> str:
    """A code in lower case; '' for a text. Some endpoints put a text behind the code: `invalid_grant: expired`."""
    code = text.strip().partition(":")[0]
    return code.lower() if CODE.fullmatch(code) else ""
