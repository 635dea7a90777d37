"""The record of a batch, and the batch object of OpenAI's API that it becomes."""

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from shared.decoding import UnreadableRecord, decode_record, parse_values

VALIDATING, IN_PROGRESS, FINALIZING, CANCELLING = "validating", "in_progress", "finalizing", "cancelling"
COMPLETED, FAILED, EXPIRED, CANCELLED = "completed", "failed", "expired", "cancelled"
UNFINISHED = (VALIDATING, IN_PROGRESS, FINALIZING, CANCELLING)
STATES = (*UNFINISHED, COMPLETED, FAILED, EXPIRED, CANCELLED)
#: Why a batch was cancelled, if an operator did it.
BY_OPERATOR = "operator"
#: Endpoints of whose requests a batch may consist.
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
#: Fields of the record that are stored as JSON.
JSON_FIELDS = ("metadata", "errors", "output_parts", "error_parts", "samples")
#: Fields of the record that count failed requests by reason begin with it.
FAILURE_PREFIX = "failed:"
#: When a batch came into each of its states; 0 for never.
TIMES = (
    "in_progress_at",
    "expires_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)
#: When so many requests had ended: seconds since the epoch, and how many.
Sample = list[int]
WINDOW = re.compile(r"([1-9][0-9]{0,5})([smhd])")
UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
#: Bounds of the seconds that a batch may take.
MIN_WINDOW_SECONDS, MAX_WINDOW_SECONDS = 1, 30 * 86_400


@dataclass(frozen=True)
class Batch:
    """One batch. Times are seconds since the epoch, 0 for never."""

    id: str
    #: Id of the API key, and the pool of a caller's own refresh token, '' for others.
    key: str
    endpoint: str
    input_file_id: str
    #: Ids of the files with the results, which exist once it has ended and there are any.
    output_file: str
    error_file: str
    created_at: int
    completion_window: str
    #: When it expires.
    expires_at: int
    pool: str = ""
    status: str = VALIDATING
    #: How it ends, from `finalizing` on.
    outcome: str = COMPLETED
    #: Why it was cancelled, unless its caller asked for that.
    reason: str = ""
    metadata: dict[str, Any] | None = None
    #: Seconds for which the files with the results are kept; 0 for as long as others.
    output_ttl: int = 0
    errors: list[Any] = field(default_factory=list)
    #: The model of its first line.
    model: str = ""
    in_progress_at: int = 0
    finalizing_at: int = 0
    completed_at: int = 0
    failed_at: int = 0
    expired_at: int = 0
    cancelling_at: int = 0
    cancelled_at: int = 0
    total: int = 0
    completed: int = 0
    failed: int = 0
    #: Why requests have failed -> how many: the farm's code, or `http_<status>` of the upstream.
    failures: dict[str, int] = field(default_factory=dict)
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    #: The last line that was begun, and where in the input the next one starts.
    last_line: int = 0
    next_offset: int = 0
    #: Results that wait in Redis: their bytes, and how many of them make up the part that is being stored.
    result_bytes: int = 0
    staged: int = 0
    #: Sizes of the parts of the two files that are in the store.
    output_parts: list[Any] = field(default_factory=list)
    error_parts: list[Any] = field(default_factory=list)

    #: When how many requests had ended lately, oldest first (shared/batches/pace.py).
    samples: list[Any] = field(default_factory=list)
    #: What keeps its requests from being run, '' for nothing known (shared/batches/hindrances.py).
    hindrance: str = ""

    @property
    def is_unfinished(self) -> bool:
        return self.status in UNFINISHED

    @classmethod
    def decode(cls, stored: Mapping[bytes, bytes]) -> "Batch":
        """Raises UnreadableRecord."""
        values: dict[str, Any] = {name.decode(): value.decode(errors="replace") for name, value in stored.items()}
        try:
            values |= {name: int(values[name]) for name in NUMBERS if name in values}
            values["failures"] = read_failures(stored)
        except ValueError:
            raise UnreadableRecord("a Batch has a number that is none") from None
        return decode_record(cls, values | {name: parse_values(values[name]) for name in JSON_FIELDS if name in values})

    def describe(self) -> dict[str, Any]:
        """The batch object of OpenAI's API."""
        has_ended = not self.is_unfinished
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.model or None,
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": self.status,
            "output_file_id": self.output_file if has_ended and self.output_parts else None,
            "error_file_id": self.error_file if has_ended and self.error_parts else None,
            "created_at": self.created_at,
            **{name: getattr(self, name) or None for name in TIMES},
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "usage": {
                "input_tokens": self.input_tokens,
                "input_tokens_details": {"cached_tokens": self.cached_tokens},
                "output_tokens": self.output_tokens,
                "output_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
                "total_tokens": self.input_tokens + self.output_tokens,
            },
            "metadata": self.metadata,
        }


#: Fields of the record that are numbers.
NUMBERS = tuple(each.name for each in fields(Batch) if each.type is int)


def encode_fields(values: Mapping[str, Any]) -> dict[str, str | int]:
    """Fields of the record as its hash in Redis has them; lone surrogates, which have no UTF-8, are escaped."""
    encoded: dict[str, str | int] = {}
    for name, value in values.items():
        if name in JSON_FIELDS:
            encoded[name] = json.dumps(value, separators=(",", ":"))
        elif name != "failures":
            encoded[name] = value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
    return encoded


def name_failure(code: str) -> str:
    """The record's field that counts requests which have failed for this reason."""
    return f"{FAILURE_PREFIX}{code}"


def read_failures(stored: Mapping[bytes, bytes]) -> dict[str, int]:
    prefix = FAILURE_PREFIX.encode()
    return {name.removeprefix(prefix).decode(): int(count) for name, count in stored.items() if name.startswith(prefix)}


def parse_window(text: str) -> int | None:
    """Seconds of a completion window such as `24h`; None for what is none."""
    match = WINDOW.fullmatch(text)
    seconds = int(match[1]) * UNIT_SECONDS[match[2]] if match else 0
    return seconds if MIN_WINDOW_SECONDS <= seconds <= MAX_WINDOW_SECONDS else None


def new_batch_id() -> str:
    return f"batch_{secrets.token_hex(16)}"
