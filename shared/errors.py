"""The farm's exception hierarchy. Errors raised and caught within one package are defined there.

FarmError
├── SettingsError            a setting is unknown or invalid
├── WrongSecretKey           the secret key cannot unseal this farm's credentials
├── StoreUnavailable         Redis is unreachable or unsuitable
│   └── StoreLoading         Redis is still loading its data
├── DataTooNew               the data needs a newer farm (shared/redis_connection/data_version.py)
├── UnreadableRecord         a record is broken, or of a newer version (shared/decoding.py)
├── NotFound                 a record does not exist
├── BadField                 a field of a record is unknown or invalid
├── Conflict                 a record was changed concurrently, or cannot be changed
├── QueueFull                the pool's queue is full (shared/protocol/relay_queue.py)
├── LimitReached             the API key has reached a limit (shared/api_keys/limits.py)
├── NoWorkerProcess          no worker process carried out the operation (shared/protocol/credential_operations.py)
├── LeaseLost                the lease has expired or gone to another worker process
│   ├── ForeignCredential    the credential belongs to another token endpoint
│   └── AccountKnown         another credential has the account (workers/sign_in/accounts.py)
├── AccountResting           the account has reached a limit that the farm keeps for it
├── RefreshPending           another token refresher refreshes the credential, or has just done so
├── NoAllowedJob             the credential rests for the models of all waiting jobs
├── BreakerOpen              the circuit breaker of the pool, or of its token endpoint, is open
├── PoolPaused               an operator has paused the pool
├── UpstreamUnreachable      no connection could be made (workers/upstream/client.py)
│   └── ConnectTimeout       connecting timed out
├── UpstreamMisconfigured    the pool's settings allow no request (workers/upstream/client.py)
├── ConnectionDropped        the connection broke before the response (workers/upstream/http_connection.py)
├── RequestNotSendable       HTTP has no way to express the request (workers/upstream/http_connection.py)
├── ResponseTruncated        the response ended early (workers/upstream/client.py)
├── InvalidResponse          a 2xx is an error in disguise (shared/response/endpoints.py)
├── IncompleteResponse       a stream or JSON lacks its end (workers/response/error_sniffer.py)
├── TokenError               no access token could be obtained
│   ├── InvalidGrant         the token endpoint refused the refresh token
│   ├── TokenRefused         the same, but the token is presented again later
│   └── TokenEndpointDown    429, 5xx, a timeout or a malformed response
│       └── RefresherDown    the token refresher of this host does not reply
├── FileStoreDown            the store of files' bytes fails (shared/files/part_store.py)
│   └── FileStoreFull        it has no room left
├── PartNotFound             it does not have the bytes
├── FileNotFound             the API key has no such file (shared/files/file_store.py)
├── TooManyFiles             the API key may not store the file
├── TooManyBatches           the API key has too many unfinished batches (shared/batches/batch_store.py)
├── CreatedBefore            a request with the same idempotency key has created it (shared/creations/created_once.py)
├── CreatedOther             … has created something else
├── SignInFailed             a sign-in has failed for good (workers/sign_in/errors.py)
├── FrameTimeout             no frame arrived in time (web/request/reply_frames.py)
├── NameReused               a name of a kept answer stands for another request (web/replay/answers/answer_store.py)
├── AlreadyRunning           a farm is already running in this data dir (launcher/processes/up.py)
└── ApiError                 a request ends with an error in OpenAI's format
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


class FarmError(Exception):
    """Base class of all errors that the farm raises on purpose."""


class SettingsError(FarmError):
    """Raised when a setting is unknown or invalid; the message names it."""


class WrongSecretKey(FarmError):
    """Raised when FARM_SECRET_KEY (or the key in the data dir) cannot unseal the credentials in Redis."""


class StoreUnavailable(FarmError):
    """Raised at start when Redis does not reply, refuses commands or is too old."""


class StoreLoading(StoreUnavailable):
    """Raised when Redis is still loading its data from disk."""


class NotFound(FarmError):
    """Raised when a record does not exist."""


class BadField(FarmError):
    """Raised for an unknown or invalid field of a record."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}" if name else reason)
        self.name = name
        self.reason = reason


class Conflict(FarmError):
    """Raised when a record was changed concurrently, or can no longer be changed."""


class LeaseLost(FarmError):
    """Raised when a lease is lost; the worker must stop using the credential."""


class ForeignCredential(LeaseLost):
    """Raised when a credential belongs to another token endpoint than its pool now has; its token must not go there."""


class AccountResting(FarmError):
    """Raised when an account has used up a limit that its settings give it, so that no request may be sent yet."""

    def __init__(self, seconds: float, limit: str) -> None:
        """`seconds` until it may go on; `limit`: the setting's name, `account_rpm` for example."""
        super().__init__(f"the account has reached its {limit} and may go on in {seconds:.1f} s")
        self.seconds = seconds
        self.limit = limit


class RefreshPending(FarmError):
    """Raised when another token refresher refreshes the credential, or has just done so: look at the store again."""


class NoAllowedJob(FarmError):
    """Raised when no job waits that the credential may run, and it rests for some models."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the credential rests for a model, for {seconds:.1f} s")
        #: Seconds until the first of these rests ends, and a look is worth it.
        self.seconds = seconds


class BreakerOpen(FarmError):
    """Raised when a job or a token request may not start because its circuit breaker is open."""


class PoolPaused(FarmError):
    """Raised when a job may not start because an operator has paused its pool."""


class TokenError(FarmError):
    """Raised when no access token could be obtained for a credential."""

    #: HTTP status of the response; 0 when there was none.
    status = 0

    def __init__(self, message: str, code: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        #: What the token endpoint gave as the reason, e.g. `invalid_scope` or `http_403`; '' for none.
        self.code = code
        #: Seconds until the next try; None leaves them to the caller.
        self.retry_after = retry_after


class InvalidGrant(TokenError):
    """Raised when the token endpoint returns `invalid_grant` (RFC 6749 section 5.2) or a code like it.

    An AccessToken raises it only when that is final: the credential is dead.
    """


class TokenRefused(TokenError):
    """Raised when the token endpoint has refused the refresh token, which is presented again after `retry_after`."""

    def __init__(
        self, message: str, retry_after: float, *, is_last: bool, code: str = "", is_in_doubt: bool = False
    ) -> None:
        super().__init__(message, code, retry_after)
        self.retry_after: float = retry_after
        #: Whether that is the last time before the credential is declared dead.
        self.is_last = is_last
        #: Whether the answer to an earlier refresh, and maybe a rotated token, has been lost.
        self.is_in_doubt = is_in_doubt


class TokenEndpointDown(TokenError):
    """Raised when the token endpoint fails for reasons unrelated to the credential; retry later.

    It has a code when its responses are of no use, so that operators see why.
    """

    #: Whether it may have granted a token: the request was sent, and no answer came.
    is_outcome_unknown = False


class RefresherDown(TokenEndpointDown):
    """Raised when the token refresher of this host does not reply, although its supervisor restarts it."""


@dataclass
class ApiError(FarmError):
    """Raised to end a request with an error in OpenAI's format.

    Source: the OpenAI API reference, "Error codes".
    """

    #: HTTP status.
    status: int
    #: Machine-readable reason, e.g. `queue_full`.
    code: str
    #: One sentence for people; never contains a token, key or prompt.
    message: str
    #: OpenAI's error type.
    type: str = "invalid_request_error"
    #: The offending parameter, if any.
    param: str | None = None
    #: Extra response headers, e.g. `retry-after`.
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.message}"

    def body(self) -> bytes:
        return build_error_body(self.message, self.type, self.code, self.param)


def build_error_body(message: str, type_: str, code: str | None, param: str | None = None) -> bytes:
    """Encodes an error in OpenAI's format: `{"error": {"message", "type", "param", "code"}}`."""
    error = {"message": message, "type": type_, "param": param, "code": code}
    # A message may quote what a caller has sent: a lone surrogate, which JSON can express, has no UTF-8.
    return json.dumps({"error": error}, ensure_ascii=False).encode(errors="replace")
