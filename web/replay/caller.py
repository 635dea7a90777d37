"""Who asks for an answer that may be shared, and its place in the run that gives it.

A caller need not be an HTTP connection: without a socket it reads the frames of its follower in its own greenlet
(web/request/reply_frames.py), and closes the follower when it has them all, or when that greenlet is killed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from web.replay.follower import Follower
from web.replay.limit_turn import LimitTurn
from web.replay.sharing import Sharing
from web.request.pending import PendingRequest

#: Where an answer came from, as `x-farm-cache` says.
MISS, JOINED, HIT = "miss", "joined", "hit"


@dataclass(frozen=True)
class Caller:
    """A caller, and its request as it would be run."""

    #: Has no socket of its own: it runs for all that join it.
    pending_request: PendingRequest
    sharing: Sharing
    #: Enqueues the request. Called once at most, but perhaps long after the caller has left: another front may have run
    #: the request until then.
    submit: Callable[[], object]
    #: None for a caller that nobody has to watch.
    socket: Any = None


@dataclass(frozen=True)
class Joined:
    """A caller's place in a run."""

    follower: Follower
    outcome: str
    #: Its turn in its API key's requests per minute; None for a request that is run, which waits as any other.
    turn: LimitTurn | None
