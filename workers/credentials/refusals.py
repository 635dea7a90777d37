"""How often a refresh token that is refused is presented again before its credential is dead. No I/O.

`invalid_grant` may be wrong: the replica that responds has not seen the latest rotation yet, a deploy went wrong, the
client id is another one (RFC 6749 section 5.2). So the same token is presented again after growing pauses. Only the
last time it is the superseded token, which an endpoint with reuse detection takes for a theft (RFC 9700 section
4.14.2). While no other credential of the pool is granted a token either, the whole patience is used up first.
"""

import json
import random
from dataclasses import asdict, dataclass, fields

from shared.parsing import parse_json_object

#: Pauses after the first refusals, as shares of the patience (FARM_REFUSAL_PATIENCE); the last one repeats.
PAUSES = (1 / 15, 2 / 15, 4 / 15)
#: Refusals while others were granted tokens that are evidence against the credential.
MIN_WHILE_OTHERS_GRANTED = 2
#: Factors that spread the pauses of credentials that were refused together.
JITTER = (0.9, 1.1)


@dataclass(frozen=True)
class Refusals:
    """The refusals of one refresh token so far. Times are seconds since the epoch."""

    #: Fingerprint of the token.
    token: str = ""
    count: int = 0
    #: Times of the first and of the latest refusal.
    since: float = 0.0
    refused_at: float = 0.0
    #: Refusals before which, since the previous one, another credential of the pool was granted a token.
    while_others_granted: int = 0
    #: When the token is presented again.
    retry_at: float = 0.0
    #: Whether that is the last time, with the superseded token if there is one.
    is_last: bool = False
    #: The error code of the latest refusal.
    code: str = ""
    #: HTTP status of the latest refusal, 0 if that is not known.
    status: int = 0
    #: Whether the answer to an earlier refresh, and maybe a rotated token, has been lost.
    is_in_doubt: bool = False

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, stored: bytes | None) -> "Refusals":
        """No refusals when nothing is stored; ignores unknown fields."""
        values = parse_json_object(stored or b"")
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})

    def pause(self, now: float, patience: float) -> float:
        """Seconds until the token is presented again; bounded, because the clocks of two hosts may differ."""
        return max(0.0, min(self.retry_at - now, PAUSES[-1] * JITTER[1] * patience))

    def add(
        self, token: str, now: float, patience: float, granted_at: float, code: str = "", status: int = 0
    ) -> "Refusals | None":
        """The refusals with one more, at `now`; None when it was the last: the credential is dead.

        `patience`: seconds. `granted_at`: when another credential of the pool was last granted a token; 0 for never.
        """
        if self.is_last:
            return None
        count = self.count + 1
        since = self.since or now
        others = self.while_others_granted + (0 < self.refused_at < granted_at)
        is_last = count >= len(PAUSES) and (others >= MIN_WHILE_OTHERS_GRANTED or now - since >= patience)
        pause = PAUSES[min(count, len(PAUSES)) - 1] * patience * random.uniform(*JITTER)
        return Refusals(token, count, since, now, others, now + pause, is_last, code, status)
