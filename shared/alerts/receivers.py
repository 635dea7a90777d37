"""Receivers of alerts: their names without the secrets of their URLs, and how far each has been told. No I/O."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from urllib.parse import unquote, urlsplit

from shared.backoff import compute_backoff
from shared.decoding import parse_record

#: Services whose URL names a host of one's own; in those of others the host may be a token.
SCHEMES_WITH_HOST = frozenset({"json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos", "syslog"})
#: Seconds until a failed delivery is tried again, doubled each time, up to the maximum.
RETRY_SECONDS, MAX_RETRY_SECONDS = 10.0, 600.0
HOUR_SECONDS = 3600.0
#: Characters from which on a part of a URL is taken out of texts: a shorter one is no secret, and occurs by chance.
MIN_SECRET_LENGTH = 4


@dataclass(frozen=True)
class Receiver:
    """One of FARM_ALERT_URLS, as Redis keeps it. Times are seconds since the epoch, 0 for never."""

    #: Its URL without secrets.
    name: str
    #: The last notice that it has been told of, by its id in the stream.
    cursor: str = "0-0"
    #: When it was sent messages in the last hour, the oldest first.
    sent: Sequence[float] = ()
    #: Failed tries since the last delivery, since when, and when the next one is due.
    failures: int = 0
    failed_since: float = 0.0
    retry_at: float = 0.0
    #: Why the last try failed, '' if it did not.
    error: str = ""

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, encoded: bytes) -> "Receiver":
        """Raises UnreadableRecord."""
        return parse_record(cls, encoded)

    @property
    def delivered_at(self) -> float:
        return self.sent[-1] if self.sent else 0.0

    def due_at(self, hourly_limit: int) -> float:
        """When it may be sent the next message; 0 for at once."""
        free_at = self.sent[-hourly_limit] + HOUR_SECONDS if len(self.sent) >= hourly_limit else 0.0
        return max(self.retry_at, free_at)

    def with_delivery(self, cursor: str, now: float) -> "Receiver":
        """After a message with all notices up to this one."""
        sent = (*(at for at in self.sent if at > now - HOUR_SECONDS), now)
        return replace(self, cursor=cursor, sent=sent, failures=0, failed_since=0.0, retry_at=0.0, error="")

    def with_failure(self, error: str, now: float) -> "Receiver":
        pause = compute_backoff(RETRY_SECONDS, MAX_RETRY_SECONDS, self.failures)
        since = self.failed_since or now
        return replace(self, failures=self.failures + 1, failed_since=since, retry_at=now + pause, error=error)


def identify(url: str) -> str:
    """Id of a receiver: its URL holds secrets and stays out of Redis."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def name_service(url: str) -> str:
    """What the URL begins with: `mailto`, `tgram`, `json`, …"""
    return url.partition("://")[0].lower()


def mask_url(url: str) -> str:
    """The service, and the host if it is one of the operator's own: `json://hooks.example.org/…`."""
    scheme, _, rest = url.partition("://")
    authority, _, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    # With an `@` behind a slash, what looks like the host may be part of a password.
    if scheme.lower() not in SCHEMES_WITH_HOST or "@" in path:
        return f"{scheme.lower()}://…"
    authority = authority.rpartition("@")[2]
    return f"{scheme.lower()}://{authority}{'/…' if len(rest) > len(authority) else ''}"


def remove_secrets(text: str, url: str) -> str:
    """The text without any part of the URL but its service and a host of the operator's own."""
    kept = {url.partition("://")[0], *re.split(r"[/:@]+", mask_url(url))}
    for part in sorted(set(split_url(url)) - kept, key=len, reverse=True):
        if len(part) >= MIN_SECRET_LENGTH:
            text = text.replace(part, "…")
    return text


def split_url(url: str) -> list[str]:
    """The parts of a URL between its delimiters, and what those are when they are decoded."""
    parts = [url, url.partition("://")[2], *re.split(r"[/?#@:&=;,]+", url.partition("://")[2])]
    try:
        parsed = urlsplit(url)
        parts += [parsed.netloc, parsed.path.strip("/"), parsed.query]
    except ValueError:
        pass  # What apprise takes need not be a URL to others.
    return [each for part in parts for each in {part, unquote(part)} if each]
