"""Parsers of the settings of alerts: apprise URLs, which are secrets, and names of rules."""

import re
from typing import Any

from shared.languages.catalogues import list_codes
from shared.settings.parsers import InvalidSecret, parse_names

#: Rule -> what it tells.
ALERT_RULES = {
    "account_dead": "an account's token was refused for good",
    "pool_without_accounts": "no account of a pool is in service",
    "upstream_down": "the upstream of a pool, or its token endpoint, fails for all",
    "queue_wait": "an interactive request has waited longer than FARM_ALERT_QUEUE_WAIT",
    "quota": "an API key has used 80 % of its quota, and then all of it",
    "rotation_in_doubt": "a token may have been rotated without the farm learning of the new one",
    "redis_not_on_disk": "Redis does not confirm that rotated tokens are on disk, or held by replicas",
    "file_store_down": "files can't be stored: the disk or bucket is full, or away",
}
#: What stands between two URLs: white space, or a comma, which may also be part of a URL.
SEPARATOR = re.compile(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+.-]*://)|\s+")
#: An apprise URL begins with the name of a service, and goes on with whatever that needs.
APPRISE_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s]+")


def parse_alert_urls(value: Any) -> tuple[str, ...]:
    """Parses a list of apprise URLs, or text with white space or commas between them. Messages never repeat them."""
    parts = SEPARATOR.split(value.strip()) if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise InvalidSecret("must be apprise URLs, separated by white space")
    urls = tuple(dict.fromkeys(part.strip().strip(",") for part in parts if part.strip(" \t\n,")))
    for number, url in enumerate(urls, 1):
        if not APPRISE_URL.fullmatch(url):
            raise InvalidSecret(f"has an entry, number {number}, that is no apprise URL such as mailto://… or json://…")
    return urls


def parse_alert_language(value: Any) -> str:
    """Parses the code of a language that the farm speaks."""
    codes = list_codes()
    if value not in codes:
        raise ValueError(f"must be one of {', '.join(codes)}")
    return str(value)


def parse_alert_rules(value: Any) -> tuple[str, ...]:
    """Parses names of rules, as parse_names does."""
    names = parse_names(value)
    if unknown := [name for name in names if name not in ALERT_RULES]:
        raise ValueError(f"must be names of {', '.join(ALERT_RULES)}, not {unknown[0]!r}")
    return tuple(dict.fromkeys(names))
