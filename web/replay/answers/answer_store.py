"""Answers that are kept in Redis, and who runs a request whose answer is not there yet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from shared import keys
from shared.errors import FarmError
from shared.live_fronts import find_gone_fronts
from shared.protocol.messages import Frame
from shared.redis_connection.auto_pipeline import AutoPipeline
from web.replay.answers.sealed_answer import seal, unseal

FUNCTIONS_LUA, CLAIM_LUA, KEEP_LUA, RELEASE_LUA = (
    Path(__file__).with_name(f"{name}.lua") for name in ("kept_answers", "claim_run", "keep_answer", "release_run")
)
#: Seconds that pieces of an answer live before it is complete.
UPLOAD_SECONDS = 60


@dataclass(frozen=True)
class Share:
    """A name under which a request shares its answer with later ones."""

    name: str
    #: Seals the answer.
    key: bytes
    #: What all requests of the name must have in common, '' if the name says it all.
    print: str = ""
    #: Seconds for which the answer is kept, 0 for as long as the request runs.
    ttl: float = 0.0
    #: Whether an answer that is there, or on its way, may be used.
    may_use: bool = True
    #: Whether later requests may join the run of this one by the name.
    may_join: bool = True
    #: Seconds of age of a kept answer, at most, and for which it must still be kept, to be used.
    max_age: float = math.inf
    min_left: float = 0.0

    def encode(self) -> tuple[str | int, ...]:
        """As claim_run.lua takes it."""
        max_age = "" if math.isinf(self.max_age) else int(1000 * self.max_age)
        return self.name, self.print, int(self.may_use), int(self.may_join), int(1000 * self.min_left), max_age


@dataclass(frozen=True)
class KeptAnswer:
    """An answer that has been kept."""

    share: Share
    frames: list[Frame]


@dataclass(frozen=True)
class OtherRun:
    """A run of the same request in another front."""

    share: Share
    front: str
    id: str


class NameReused(FarmError):
    """Raised when a name stands for another request."""


class AnswerStore:
    """The answers and runs of all fronts."""

    def __init__(self, redis: Redis, front_id: str, max_bytes: int) -> None:
        self._redis = redis
        self._front_id = front_id
        self._max_bytes = max_bytes
        self._pipeline = AutoPipeline(redis)
        self._claim = self._pipeline.register_script(FUNCTIONS_LUA, CLAIM_LUA)
        self._keep = self._pipeline.register_script(FUNCTIONS_LUA, KEEP_LUA)
        self._release = self._pipeline.register_script(FUNCTIONS_LUA, RELEASE_LUA)

    def claim(self, run_id: str, shares: Sequence[Share], seconds: float) -> KeptAnswer | OtherRun | None:
        """Finds the answer or who runs the request; None when the run is claimed, for so many seconds at most.

        Raises NameReused, RedisError. Idempotent.
        """
        names = [value for each in shares for value in each.encode()]
        args = [self._front_id, run_id, int(1000 * seconds), keys.front_gone(""), *names]
        state, *found = self._claim(keys=[keys.FRONTS], args=args)
        if state == b"claimed":
            return None
        if state == b"reused":
            raise NameReused
        share = shares[int(found[0])]
        if state == b"running":
            return OtherRun(share, found[1].decode(), found[2].decode())
        frames = self._load(share, int(found[1]), found[2:])
        return KeptAnswer(share, frames) if frames else self.claim(run_id, shares, seconds)

    def is_running(self, run: OtherRun) -> bool:
        """Whether the other front still runs it, and lives. Raises RedisError."""
        run_id = self._pipeline.execute("HGET", keys.shared_run(run.share.name), "run")
        return bool(run_id) and run_id.decode() == run.id and not find_gone_fronts(self._redis, [run.front])

    def _load(self, share: Share, count: int, pieces: list[bytes]) -> list[Frame]:
        """The frames of an answer; none if it is gone meanwhile, or can't be read."""
        answer = keys.answer(share.name)
        if not pieces:
            # One by one, so that Redis serves others in between.
            pieces = [self._pipeline.execute("LINDEX", answer, number) for number in range(1, count + 1)]
        if None in pieces:
            return []
        try:
            return unseal(pieces, share.key)
        except ValueError:
            self._pipeline.execute("DEL", answer)
            return []

    def keep(self, share: Share, run_id: str, frames: Sequence[Frame]) -> bool:
        """Returns whether there was room for it. Raises RedisError; can be tried again then."""
        pieces = seal(frames, share.key)
        # The same run may be kept under several names at the same time.
        upload = keys.answer_upload(run_id, share.name)
        self._pipeline.execute("DEL", upload)
        for piece in pieces[:-1]:
            self._pipeline.execute("RPUSH", upload, piece)
            self._pipeline.execute("EXPIRE", upload, UPLOAD_SECONDS)
        args = [share.name, share.print, int(1000 * share.ttl), self._max_bytes, len(pieces), pieces[-1]]
        return bool(self._keep(keys=[upload], args=args))

    def release(self, run_id: str, names: Sequence[str]) -> None:
        """Lets others run the request. Raises RedisError."""
        if names:
            self._release(keys=[], args=[run_id, *names])
