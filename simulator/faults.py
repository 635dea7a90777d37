"""Faults on demand, drawn from a seeded generator so that a run can be repeated. No I/O."""

import random
from dataclasses import dataclass, field, fields
from typing import Any

#: Faults of API requests, in drawing order: one draw per request decides between them.
DRAWN_FAULTS = (
    "rate_limit",
    "server_error",
    "cut",
    "hang_headers",
    "hang_stream",
    "expired",
    "error_object",
    "empty_stream",
    "page",
)


@dataclass
class Faults:
    """Shares of requests (0 to 1) that fail, by kind of failure."""

    seed: int = 1
    #: Status 429 with Retry-After.
    rate_limit: float = 0
    #: Value of that Retry-After in seconds.
    retry_after: float = 1
    #: Whether that Retry-After is an HTTP date.
    retry_date: bool = False
    #: Status 500.
    server_error: float = 0
    #: The connection is aborted in the middle of the response.
    cut: float = 0
    #: The response never starts.
    hang_headers: float = 0
    #: The response stops in the middle, and the connection stays open.
    hang_stream: float = 0
    #: Status 401: the access token is reported as expired.
    expired: float = 0
    #: Status 200 with an error object.
    error_object: float = 0
    #: Status 200 with a stream that has no chunk.
    empty_stream: float = 0
    #: Status 200 with an HTML page.
    page: float = 0
    #: Status of the response to every request for the model `poison`, whatever the account; 0 for none.
    poison: int = 0
    #: Its Retry-After in seconds, 0 for none.
    poison_retry_after: float = 0
    #: Number of an account that answers every request with status 500, -1 for none.
    bad_account: int = -1
    #: Share of token requests that get status 503.
    token_error: float = 0
    #: Share of token requests that get status 400 with `invalid_grant`, whatever the token.
    token_refusal: float = 0
    #: Seconds that each token request takes.
    token_delay: float = 0
    #: Seconds between the grant of tokens and the response that brings them.
    token_answer_delay: float = 0
    _random: random.Random = field(default_factory=random.Random, repr=False)

    def __post_init__(self) -> None:
        self._random.seed(self.seed)

    def draw(self) -> str:
        """The fault of the next API request, '' for none."""
        point = self._random.random()
        for name in DRAWN_FAULTS:
            point -= getattr(self, name)
            if point < 0:
                return name
        return ""

    def is_poisoned(self, body: dict[str, Any] | None) -> bool:
        """Whether this request gets the status `poison`."""
        return self.poison > 0 and body is not None and body.get("model") == "poison"

    def draw_token_error(self) -> bool:
        """Whether the next token request fails."""
        return self._random.random() < self.token_error

    def draw_token_refusal(self) -> bool:
        """Whether the next token request is refused."""
        return self._random.random() < self.token_refusal

    @classmethod
    def parse(cls, values: dict[str, Any]) -> "Faults":
        """Builds faults from JSON values. Raises ValueError on an unknown name."""
        known = {item.name for item in fields(cls) if not item.name.startswith("_")}
        unknown = set(values) - known
        if unknown:
            raise ValueError(f"unknown fault {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
        return cls(**values)
