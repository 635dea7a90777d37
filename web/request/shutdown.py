"""Ends the requests of a front that is being stopped, so that each caller gets a reply (I7)."""

from shared.errors import ApiError
from shared.protocol.messages import Failure
from web.reply.hub import Hub

#: Seconds after which callers should try again: by then another front, or the restarted farm, may serve.
RETRY_AFTER_SECONDS = 5
SHUTTING_DOWN = Failure(
    503,
    "shutting_down",
    "the farm is shutting down; try again later",
    "server_error",
    0,
    {"retry-after": str(RETRY_AFTER_SECONDS)},
)


class Shutdown:
    """Whether and how far the front is being stopped."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        #: Whether requests that no worker has taken yet are refused.
        self.is_stopping = False

    def begin(self) -> None:
        """Makes the requests that wait in the queue leave it."""
        self.is_stopping = True
        self._hub.wake_all()

    def end_all(self) -> None:
        """Ends all requests, those whose reply has begun too."""
        self.is_stopping = True
        self._hub.fail_all(SHUTTING_DOWN)

    def check(self) -> None:
        """Raises ApiError 503 when the front is being stopped."""
        if self.is_stopping:
            raise shutting_down_error()


def shutting_down_error() -> ApiError:
    return SHUTTING_DOWN.to_error()
