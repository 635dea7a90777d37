"""The tree of the farm's errors. What is raised and caught in one package is defined there.

FarmError
├── SettingsError            a setting is unknown or bad
├── WrongSecretKey           the secret key does not unseal this farm's credentials
├── StoreUnavailable         Redis does not reply
│   └── StoreLoading         Redis is still loading its data
├── NotFound                 an operator named a record that does not exist
├── BadField                 a field of a record is unknown or bad
├── Conflict                 a record has changed meanwhile, or can't be changed
├── QueueFull                the pool's queue is full (shared/protocol/relay_queue.py)
├── LimitReached             a limit of the API key is reached (shared/api_keys/limits.py)
├── NoWorkerProcess          no worker process runs an operation (shared/protocol/credential_operations.py)
├── LeaseLost                the credential belongs to another worker process now
├── UpstreamDown             the pool's circuit breaker is open
├── UpstreamUnreachable      no response could be had (workers/upstream/client.py)
│   └── ConnectTimeout       connecting took too long
├── ResponseTruncated        a response broke off (workers/upstream/client.py)
├── InvalidResponse          a 2xx is an error in disguise (workers/response/error_sniffer.py)
├── TokenError               no access token could be had
│   ├── InvalidGrant         the token endpoint refused the refresh token
│   └── TokenEndpointDown    429, 5xx, a timeout or nonsense from the token endpoint
├── FrameTimeout             no frame arrived in time (web/request/pending.py)
├── AlreadyRunning           a farm runs in this data dir (launcher/processes/up.py)
└── ApiError                 ends a request with an error in OpenAI's shape
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


class FarmError(Exception):
    """Raised when something the farm can name went wrong; the root of the tree."""


class SettingsError(FarmError):
    """Raised when a setting is unknown, bad or contradicts another; the message names it."""


class WrongSecretKey(FarmError):
    """Raised when FARM_SECRET_KEY (or the data dir's key) does not open the credentials in Redis."""


class StoreUnavailable(FarmError):
    """Raised when Redis does not answer at start."""


class StoreLoading(StoreUnavailable):
    """Raised when Redis is there and still reads its data from disk."""


class NotFound(FarmError):
    """Raised when an operator names a record that does not exist."""


class BadField(FarmError):
    """Raised when a field of a record is unknown or bad."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}" if name else reason)
        self.name = name
        self.reason = reason


class Conflict(FarmError):
    """Raised when a record has been changed by somebody else meanwhile, or can't be changed any more."""


class LeaseLost(FarmError):
    """Raised when a worker's lease ran out or went to another process; it must stop using the credential."""


class UpstreamDown(FarmError):
    """Raised when a job may not be begun, because the pool's upstream is down."""


class TokenError(FarmError):
    """Raised when no access token could be had for a credential."""


class InvalidGrant(TokenError):
    """Raised when the token endpoint answers `invalid_grant` (RFC 6749 section 5.2): the refresh token is dead."""


class TokenEndpointDown(TokenError):
    """Raised when the token endpoint fails in a way that says nothing about the credential; try again later."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        #: Seconds the endpoint asked to wait, if it did.
        self.retry_after = retry_after


@dataclass
class ApiError(FarmError):
    """Raised when a request ends with an error of ours, in OpenAI's error shape.

    Source: the OpenAI API reference, "Error codes".
    """

    #: HTTP status.
    status: int
    #: Machine-readable reason, e.g. `queue_full`.
    code: str
    #: One sentence for a person; never holds a token, a key or a prompt.
    message: str
    #: OpenAI's error class.
    type: str = "invalid_request_error"
    #: The parameter at fault, if one is.
    param: str | None = None
    #: Extra answer headers, e.g. `retry-after`.
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.message}"

    def body(self) -> bytes:
        """The JSON body a caller sees."""
        return build_error_body(self.message, self.type, self.code, self.param)


def build_error_body(message: str, type_: str, code: str | None, param: str | None = None) -> bytes:
    """OpenAI's error shape: `{"error": {"message", "type", "param", "code"}}`."""
    error = {"message": message, "type": type_, "param": param, "code": code}
    return json.dumps({"error": error}, ensure_ascii=False).encode()
