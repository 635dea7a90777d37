"""One refresh of a credential at a time over all hosts; one whose outcome is unknown leaves the credential in doubt."""

from pathlib import Path
from typing import Any, cast

from redis import Redis

from shared import clock, keys
from shared.credentials.sealing import fingerprint
from shared.errors import LeaseLost, RefreshPending
from shared.redis_connection.client import register_script
from workers.credentials.refresh_request import RefreshRequest

#: Seconds without a report after which a token refresher is dead: longer than a lease, which a busy host loses first.
REFRESHER_TIMEOUT_SECONDS = 20.0
#: Seconds after which a refresh has been abandoned, although its refresher lives.
MAX_REFRESH_SECONDS = 300.0


class RefreshLock:
    """Held by a token refresher while it presents a credential's refresh token."""

    def __init__(self, redis: Redis, refresher_id: str) -> None:
        self._redis = redis
        self._refresher_id = refresher_id
        folder = Path(__file__)
        self._begin_script = register_script(redis, folder.with_name("begin_refresh.lua"))
        self._end_script = register_script(redis, folder.with_name("end_refresh.lua"))

    def begin(self, request: RefreshRequest, current_token: str, presented_token: str) -> tuple[bool, bool]:
        """Returns whether the credential is in doubt, and whether that is found out only now.

        Raises RefreshPending, or LeaseLost when the lease of the request is not in Redis.
        """
        now = clock.now()
        reply = self._begin_script(
            keys=[keys.credential(request.credential_id), keys.lease(request.credential_id), keys.REFRESHERS],
            args=[
                *(request.lease_value, self._refresher_id, fingerprint(current_token), fingerprint(presented_token)),
                *(now, now - REFRESHER_TIMEOUT_SECONDS, now - MAX_REFRESH_SECONDS),
            ],
        )
        status, *details = cast("list[Any]", reply)
        if status < 0:
            raise LeaseLost("the lease was lost before the refresh")
        if not status:
            raise RefreshPending("another token refresher refreshes the credential, or has just done so")
        in_doubt_since, is_new = details
        return bool(in_doubt_since), bool(is_new)

    def end(self, credential_id: str, *, is_in_doubt: bool) -> bool:
        """Ends a refresh without a grant; a grant ends it by being stored. Returns whether it is in doubt only now."""
        args = [self._refresher_id, clock.now() if is_in_doubt else ""]
        return bool(self._end_script(keys=[keys.credential(credential_id)], args=args))
