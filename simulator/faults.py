"""Faults on demand, drawn in order from a seed, so that a run can be had again; it breaks nothing itself."""

import random
from dataclasses import dataclass, field, fields
from typing import Any

#: Names of the shares that one draw decides between.
DRAWN = (
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
    """Shares of requests (0 to 1) that go wrong, and how."""

    seed: int = 1
    #: 429 with Retry-After.
    rate_limit: float = 0
    #: Seconds of that Retry-After.
    retry_after: float = 1
    #: Whether it is given as a date instead.
    retry_date: bool = False
    #: 500.
    server_error: float = 0
    #: The connection is cut in the middle of the answer.
    cut: float = 0
    #: Nothing comes, not even headers.
    hang_headers: float = 0
    #: Nothing more comes in the middle of the answer.
    hang_stream: float = 0
    #: The access token is called expired.
    expired: float = 0
    #: 200 with an error object.
    error_object: float = 0
    #: 200 with a stream that has no event.
    empty_stream: float = 0
    #: 200 with a page for people.
    page: float = 0
    #: Of token requests: 503.
    token_error: float = 0
    #: Seconds that each token request takes.
    token_delay: float = 0
    _random: random.Random = field(default_factory=random.Random, repr=False)

    def __post_init__(self) -> None:
        self._random.seed(self.seed)

    def draw(self) -> str:
        """The fault of the next request, '' for none."""
        point = self._random.random()
        for name in DRAWN:
            point -= getattr(self, name)
            if point < 0:
                return name
        return ""

    def draw_token_error(self) -> bool:
        """Whether the next token request fails."""
        return self._random.random() < self.token_error

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Faults":
        """From JSON values. Raises ValueError on an unknown name."""
        known = {f.name for f in fields(cls) if not f.name.startswith("_")}
        unknown = set(values) - known
        if unknown:
            raise ValueError(f"unknown fault {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
        return cls(**values)
