"""The response that a credential's state rests on: who has sent it, HTTP status and error code, never its text."""

import re
from dataclasses import dataclass

UPSTREAM, TOKEN_ENDPOINT = "upstream", "token_endpoint"
#: An error code in lower case. What is longer, or has other characters, is a text or may hold a secret.
CODE = re.compile(r"[a-z0-9][a-z0-9_.\-]{0,63}")
SEPARATORS = re.compile(r"[_.\-]+")
#: Characters from which a part of a code that mixes letters and digits looks like a piece of a token.
MIN_SECRET_LENGTH = 13


@dataclass(frozen=True)
class Evidence:
    """The response behind a state."""

    #: Who has said it: UPSTREAM, TOKEN_ENDPOINT, or '' for nobody: an operator or a rule of the farm.
    source: str = ""
    #: HTTP status; 0 when there was no response.
    status: int = 0
    #: Error code, by our own name when there was no response (`upstream_first_byte_timeout`); '' for none.
    code: str = ""
    #: Seconds to wait as the response said, before the farm has bounded them; None if it said nothing.
    retry_after: float | None = None

    def encode(self) -> str:
        """Its form in Redis, without `retry_after`, which is a field of its own: `upstream 429 rate_limited`."""
        return f"{self.source} {self.status} {self.code}".rstrip() if self.source else ""

    @classmethod
    def decode(cls, stored: str, retry_after: str = "") -> "Evidence":
        """Any other form, that of a later version maybe, is no evidence."""
        source, status, code = [*stored.split(" "), "", ""][:3]
        if not source or not status.isdecimal():
            return cls()
        try:
            return cls(source, int(status), clean_code(code), float(retry_after) if retry_after else None)
        except ValueError:
            return cls(source, int(status), clean_code(code))

    def describe(self) -> str:
        """As people read it: `upstream: HTTP 429 rate_limited, wait 30 s`; '' for no evidence."""
        if not self.source:
            return ""
        parts = [f"HTTP {self.status}" if self.status else "", self.code]
        said = " ".join(filter(None, parts)) or "no response"
        wait = "" if self.retry_after is None else f", wait {round(self.retry_after, 1):,.10g} s"
        return f"{self.source.replace('_', ' ')}: {said}{wait}"


NO_EVIDENCE = Evidence()


def clean_code(text: object) -> str:
    """An error code in lower case; '' for what is no code, or looks like a token that an error has echoed."""
    code = str(text).lower() if isinstance(text, str | int) and not isinstance(text, bool) else ""
    if not CODE.fullmatch(code):
        return ""
    return "" if any(is_token_like(part) for part in SEPARATORS.split(code)) else code


def is_token_like(part: str) -> bool:
    """Whether a word is long and holds letters and digits, or is a long number."""
    return len(part) >= MIN_SECRET_LENGTH and any(map(str.isdigit, part))
