"""Parsers and validators of setting values. All raise ValueError for invalid input."""

import contextlib
import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Parser = Callable[[Any], Any]
Number = TypeVar("Number", int, float)

#: No duration and no share is greater.
MAX_NUMBER = 1_000_000_000

#: A host name (RFC 1123 section 2.1).
HOST_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")

#: Headers that frame a request or concern one connection (RFC 9110 section 7.6.1), and the one that has the token.
RESERVED_HEADERS = frozenset(
    {
        *("authorization", "connection", "content-length", "expect", "keep-alive", "proxy-connection", "te", "trailer"),
        *("transfer-encoding", "upgrade"),
    }
)


def parse_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value.strip()


class InvalidSecret(ValueError):
    """Raised for an invalid value by parsers whose message never repeats it, so that it may be shown for secrets."""


def secret_parser(at_least: int) -> Parser:
    """Returns a parser of secrets with at least this many characters, or none."""

    def parse(value: Any) -> str:
        secret = parse_text(value)
        if 0 < len(secret) < at_least:
            raise InvalidSecret(f"must have at least {at_least} characters: a shorter one can be guessed")
        return secret

    return parse


def int_parser(at_least: int, at_most: int | None = None) -> Parser:
    """Returns a parser of integers within inclusive bounds."""

    def parse(value: Any) -> int:
        number = convert(int, value, "a whole number")
        if isinstance(value, float):
            raise ValueError(f"must be a whole number, written without a point, not {value!r}")
        if number < at_least or (at_most is not None and number > at_most):
            bound = f" and at most {at_most}" if at_most is not None else ""
            raise ValueError(f"must be a whole number of at least {at_least}{bound}, not {value!r}")
        return number

    return parse


def number_parser(unit: str = "", *, allows_zero: bool = False) -> Parser:
    """Returns a parser of numbers above 0, or from 0, up to MAX_NUMBER."""
    what = f"a number of {unit}" if unit else "a number"
    bounds = f"{'at least' if allows_zero else 'more than'} 0 and at most {MAX_NUMBER}"

    def parse(value: Any) -> float:
        number = convert(float, value, what)
        if not 0 <= number <= MAX_NUMBER or (number == 0 and not allows_zero):
            raise ValueError(f"must be {what}, {bounds}, not {value!r}")
        return number

    return parse


def convert(kind: Callable[[Any], Number], value: Any, what: str) -> Number:
    """Raises ValueError; Python takes true for 1."""
    try:
        if not isinstance(value, bool):
            return kind(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"must be {what}, not {value!r}")


parse_seconds, parse_days, parse_share = number_parser("seconds"), number_parser("days"), number_parser()
#: 0 stands for something else than a time.
parse_optional_seconds = number_parser("seconds", allows_zero=True)


def choice_parser(*choices: str) -> Parser:

    def parse(value: Any) -> str:
        choice = value.strip().lower() if isinstance(value, str) else value
        if choice not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}, not {value!r}")
        return str(choice)

    return parse


#: Names of RFC 8414's `token_endpoint_auth_methods_supported` -> ours.
TOKEN_AUTH_NAMES = {"client_secret_basic": "basic", "client_secret_post": "body"}


def parse_token_auth(value: Any) -> str:
    name = value.strip().lower() if isinstance(value, str) else value
    return str(choice_parser("auto", "basic", "body", "private_key_jwt")(TOKEN_AUTH_NAMES.get(name, name)))


def parse_bool(value: Any) -> bool:
    """Accepts true/false, 1/0, yes/no and on/off."""
    if isinstance(value, bool):
        return value
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    parsed = words.get(value.strip().lower()) if isinstance(value, str) else None
    if parsed is None:
        raise ValueError(f"must be true or false, not {value!r}")
    return parsed


def parse_names(value: Any) -> tuple[str, ...]:
    """Parses a list, or text separated by commas."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ValueError("must be names separated by commas")
    return tuple(part.strip() for part in parts if part.strip())


def parse_error_codes(value: Any) -> tuple[str, ...]:
    """Parses error codes, as parse_names does, also numbers; they are compared in lower case."""
    names = [str(code) if isinstance(code, int) else code for code in value] if isinstance(value, list) else value
    return tuple(code.lower() for code in parse_names(names))


def parse_networks(value: Any) -> tuple[str, ...]:
    """Parses networks in CIDR notation (RFC 4632, RFC 4291) or single addresses, as parse_names does."""
    return tuple(str(ipaddress.ip_network(network, strict=False)) for network in parse_names(value))


def parse_hosts(value: Any) -> tuple[str, ...]:
    """Parses host names, in ASCII as in DNS (RFC 5890), and addresses, as parse_names does."""
    return tuple(parse_host(host) for host in parse_names(value))


def parse_host(host: str) -> str:
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(host.strip("[]")))
    try:
        name = host.removesuffix(".").encode("idna").decode().lower()
    except UnicodeError:
        name = ""
    if not HOST_NAME.fullmatch(name):
        raise ValueError(f"must be names such as farm.example.org, without scheme, port and path, not {host!r}")
    return name


def parse_mapping(value: Any) -> Mapping[str, str]:
    """Parses a table of text to text, or one encoded as JSON."""
    try:
        table = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("must be a JSON object of names") from None
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
        raise ValueError("must be a JSON object of names")
    return dict(table)


def parse_headers(value: Any) -> Mapping[str, str]:
    """Parses a table of HTTP headers (RFC 9110 section 5) for each request. Messages repeat only names."""
    headers = parse_mapping(value)
    for name, text in headers.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise InvalidSecret(f"has an invalid header name {name!r}")
        if not re.fullmatch(r"[\t\x20-\x7e\x80-\xff]*", text) or text != text.strip():
            raise InvalidSecret(f"has an invalid value for the header {name!r}")
        if name.lower() in RESERVED_HEADERS:
            raise InvalidSecret(f"must not contain the header {name!r}: the farm sets it for each request")
    return headers
