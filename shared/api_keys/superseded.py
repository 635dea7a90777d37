"""Secrets that a rotation has replaced: each is accepted until its time, or until an operator ends all of them.

Redis keeps them for good, by their SHA-256: else a secret from FARM_API_KEY would become a key of its own again at the
next start.
"""

import json
from dataclasses import asdict, dataclass

from shared.api_keys.api_key import ApiKey
from shared.decoding import parse_record


@dataclass(frozen=True)
class SupersededSecret:
    """A replaced secret of an API key. Times are seconds since the epoch."""

    #: The key.
    id: str
    #: When it was replaced, and until when it is accepted.
    at: float
    until: float

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, encoded: bytes) -> "SupersededSecret":
        """Raises UnreadableRecord."""
        return parse_record(cls, encoded)

    def limit(self, key: ApiKey) -> ApiKey:
        """The key as this secret opens it: it expires with the secret."""
        until = self.until if self.at >= key.superseded_ended_at else self.at
        return key.model_copy(update={"expires_at": min(key.expires_at, until) if key.expires_at else until})
