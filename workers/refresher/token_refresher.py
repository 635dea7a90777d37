"""Refreshes access tokens for the workers of a host, as a single flight per credential."""

import logging

import gevent
from redis.exceptions import RedisError

from shared.errors import LeaseLost, RefreshPending, TokenError
from workers.credentials.access_token import TOKEN_FAILURES
from workers.credentials.refresh_request import RefreshRequest
from workers.refresher.credential_refresh import CredentialRefresh, RefresherServices

log = logging.getLogger("farm.tokens")


class TokenRefresher:
    """Runs each refresh in a greenlet of its own, so that it goes on when whoever has asked for it is gone."""

    def __init__(self, services: RefresherServices) -> None:
        self.services = services
        #: Credential -> its running refresh, and the lease under which it was begun.
        self._flights: dict[str, tuple[gevent.Greenlet, str]] = {}

    def __len__(self) -> int:
        """How many refreshes are running."""
        return len(self._flights)

    def refresh(self, request: RefreshRequest) -> None:
        """Begins a refresh, or joins the one that runs (workers/credentials/refresh_request.py: Refresher)."""
        flight, lease_value = self._flights.get(request.credential_id) or self._begin(request)
        failure = flight.get()
        if isinstance(failure, LeaseLost) and lease_value != request.lease_value:
            raise RefreshPending("a refresh for the credential's former worker has ended")
        if failure is not None:
            raise failure

    def _begin(self, request: RefreshRequest) -> tuple[gevent.Greenlet, str]:
        self.services.store.use_header(is_readable=request.seals_header)
        flight = gevent.spawn(self._run, request), request.lease_value
        self._flights[request.credential_id] = flight
        return flight

    def _run(self, request: RefreshRequest) -> BaseException | None:
        """Returns the exception instead of raising it, because gevent prints exceptions that leave a greenlet."""
        try:
            CredentialRefresh(request, self.services).run()
        except (*TOKEN_FAILURES, RefreshPending, RedisError) as error:
            return error
        except Exception as error:
            # A failure like others, with its backoff: the worker would end, be started again and fail again.
            extra = {"action": "refresh_crashed", "pool": request.pool, "credential_id": request.credential_id}
            log.exception("a refresh failed unexpectedly", extra=extra)
            return TokenError(f"the refresh failed unexpectedly: {type(error).__name__}")
        finally:
            self._flights.pop(request.credential_id, None)
        return None
