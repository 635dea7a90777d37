"""Parsers of single setting values: text in, a checked value out; they know no setting by name."""

import ipaddress
import json
from collections.abc import Callable, Mapping
from typing import Any

Parser = Callable[[Any], Any]


def parse_text(value: Any) -> str:
    """Any text, trimmed."""
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value.strip()


def int_parser(at_least: int, at_most: int | None = None) -> Parser:
    """A reader of whole numbers within bounds."""

    def parse(value: Any) -> int:
        try:
            number = int(value)
        except (TypeError, ValueError):
            raise ValueError(f"must be a whole number, not {value!r}") from None
        if isinstance(value, (bool, float)) or number < at_least or (at_most is not None and number > at_most):
            bound = f" and at most {at_most}" if at_most is not None else ""
            raise ValueError(f"must be a whole number of at least {at_least}{bound}, not {value!r}")
        return number

    return parse


def parse_seconds(value: Any) -> float:
    """A time in seconds, more than zero."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"must be a number of seconds, not {value!r}") from None
    if not 0 < number < 1e9:
        raise ValueError(f"must be more than 0 seconds, not {value!r}")
    return number


def parse_optional_seconds(value: Any) -> float:
    """A time in seconds; 0 for none."""
    return 0.0 if value in (0, "0") and not isinstance(value, bool) else parse_seconds(value)


def parse_days(value: Any) -> float:
    """A number of days, more than zero."""
    try:
        return parse_seconds(value)
    except ValueError:
        raise ValueError(f"must be a number of days, more than 0, not {value!r}") from None


def choice_parser(*choices: str) -> Parser:
    """A reader of one word out of several."""

    def parse(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}, not {value!r}")
        return str(value)

    return parse


def parse_bool(value: Any) -> bool:
    """Yes or no."""
    if isinstance(value, bool):
        return value
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    found = words.get(value.strip().lower()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"must be true or false, not {value!r}")
    return found


def parse_url(value: Any) -> str:
    """An http(s) base URL, without the slash at its end."""
    found = parse_text(value)
    if found and not found.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return found.rstrip("/")


def parse_names(value: Any) -> tuple[str, ...]:
    """Names, separated by commas or as a list."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ValueError("must be names separated by commas")
    return tuple(part.strip() for part in parts if part.strip())


def parse_networks(value: Any) -> tuple[str, ...]:
    """Networks in CIDR notation (RFC 4632, RFC 4291) or single addresses, separated by commas or as a list."""
    return tuple(str(ipaddress.ip_network(one, strict=False)) for one in parse_names(value))


def parse_mapping(value: Any) -> Mapping[str, str]:
    """A table of text to text, or such a table as JSON."""
    try:
        table = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("must be a JSON object of names") from None
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        raise ValueError("must be a JSON object of names")
    return dict(table)
