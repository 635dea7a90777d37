"""Finds out whether a pool's upstream counts its accounts' limits per account or per model (docs/scheduling.md).

The verdict is `farm:account-limits:<pool>` in Redis, shared by all processes. FARM_ACCOUNT_LIMITS overrides it.
"""

import logging
import random
import time
from collections import OrderedDict
from pathlib import Path
from typing import cast

from redis import Redis
from rq.job import Job

from shared import clock, keys
from shared.protocol.relay_queue import queue_keys
from shared.redis_connection.client import register_script

log = logging.getLogger("farm.limits")
#: What limits are counted per; '' while that is not known.
PER_MODEL, PER_ACCOUNT, UNKNOWN = "model", "account", ""
#: Decisions about a trial: the credential doesn't rest because of a model; it need not rest as a whole; it tries
#: another model; it goes on resting.
NOT_A_MODEL, GO_ON, TRY, WAIT = "none", "model", "try", "wait"
#: Seconds for which a verdict is kept after the last evidence.
VERDICT_TTL_SECONDS = 86_400
#: Seconds until another trial after the first one that was refused; doubled with each further one, up to the maximum.
TRIAL_BACKOFF_SECONDS, MAX_TRIAL_BACKOFF_SECONDS = 60, 3600
#: Seconds between two looks of one process whether a trial is due.
LOOK_INTERVAL_SECONDS = 1.0
#: Seconds after which a trial that says nothing makes room for another.
TRIAL_TTL_SECONDS = 60
#: Refusals of credentials that rest for another model which reverse the verdict `model`; they don't count within so
#: many seconds after a confirmation, which each process repeats after a shorter time.
MAX_CONTRADICTIONS, CONFIRMED_SECONDS, CONFIRM_INTERVAL_SECONDS = 3, 10.0, 5.0
#: Seconds for which a process relies on the verdict that it has read.
VERDICT_CACHE_SECONDS = 10.0
#: Seconds for which a refusal is evidence that a model is limited, whoever asks for it; and refusals remembered.
REFUSAL_SECONDS, MAX_REFUSALS = 60.0, 200


class LimitVerdict:
    """One process's view of what the limits of a pool's accounts are counted per."""

    def __init__(self, redis: Redis, pool: str) -> None:
        self._pool = pool
        self._verdicts, self._trial = keys.account_limits(pool), keys.limit_trial(pool)
        folder = Path(__file__).parent
        self._record_rest = register_script(redis, folder / "record_rest.lua")
        self._begin_trial = register_script(redis, folder / "begin_trial.lua")
        self._record_served = register_script(redis, folder / "record_served.lua")
        self._redis = redis
        self._verdict = UNKNOWN
        self._read_at = self._confirmed_at = float("-inf")
        self._look_at = 0.0
        #: (model, refused request) -> when, by the monotonic clock; oldest first.
        self._refusals: OrderedDict[tuple[str, str], float] = OrderedDict()

    def is_stale(self) -> bool:
        """Whether the verdict has to be read again."""
        return time.monotonic() - self._read_at > VERDICT_CACHE_SECONDS

    def is_per_model(self, setting: str) -> bool:
        """Whether only the pair of credential and model rests, as far as this process knows."""
        return setting == PER_MODEL or (setting == "auto" and self._verdict == PER_MODEL)

    def record_rest(
        self,
        credential_id: str,
        model: str,
        until: float,
        setting: str,
        *,
        was_trial: bool = False,
        was_refused: bool = False,
        always: bool = True,
    ) -> str:
        """Records that the credential rests for the model until then (seconds since the epoch); returns the verdict.

        `always`: also when limits are not, or not known to be, counted per model; they may be found to be.
        """
        reply = self._record_rest(
            keys=[keys.resting_models(credential_id), self._verdicts, keys.resting_by_pool(self._pool)],
            args=[
                *(model, until, clock.now(), setting, int(was_trial), int(was_refused), int(always)),
                *(MAX_CONTRADICTIONS, CONFIRMED_SECONDS, TRIAL_BACKOFF_SECONDS, MAX_TRIAL_BACKOFF_SECONDS),
                VERDICT_TTL_SECONDS,
            ],
        )
        self._note(cast("bytes", reply).decode())
        return self._verdict

    def _note(self, verdict: str) -> None:
        if verdict != self._verdict:
            fields = {"action": "account_limits_found", "pool": self._pool, "reason": verdict}
            log.info("the upstream counts limits per %s", verdict or "account or per model", extra=fields)
        self._verdict, self._read_at = verdict, time.monotonic()

    def decide(self, credential_id: str, cooling_until: float, setting: str) -> str:
        """What a credential that rests as a whole does: NOT_A_MODEL, GO_ON, TRY or WAIT.

        Asks Redis once a second in all of the process, or when it is known to be worth it.
        """
        now = time.monotonic()
        if now < self._look_at and not self.is_per_model(setting):
            return WAIT
        self._look_at = now + LOOK_INTERVAL_SECONDS
        reply = self._begin_trial(
            keys=[keys.resting_models(credential_id), self._verdicts, self._trial, *queue_keys(self._pool)],
            args=[
                *(clock.now(), setting, cooling_until, credential_id, TRIAL_TTL_SECONDS * 1000),
                *(Job.key_for(""), random.random()),
            ],
        )
        decision = cast("bytes", reply).decode()
        if decision == NOT_A_MODEL:
            self._look_at = now
        elif decision == GO_ON:
            self._note(PER_MODEL)
        elif decision != TRY:
            self._look_at = now + max(LOOK_INTERVAL_SECONDS, min(VERDICT_CACHE_SECONDS, float(decision)))
            return WAIT
        return decision

    def record_served(self, credential_id: str, *, was_trial: bool) -> None:
        """Records that the credential was served while it rested for another model."""
        now = time.monotonic()
        if not was_trial and now - self._confirmed_at < CONFIRM_INTERVAL_SECONDS:
            return
        self._confirmed_at = now
        args = [clock.now(), VERDICT_TTL_SECONDS, credential_id if was_trial else ""]
        self._record_served(keys=[self._verdicts, self._trial], args=args)
        self._note(PER_MODEL)

    def end_trial(self, credential_id: str) -> None:
        """Makes room for another trial, after one that has said nothing."""
        if self._redis.get(self._trial) == credential_id.encode():
            self._redis.delete(self._trial)

    def note_refusal(self, model: str, request_id: str) -> None:
        self._refusals[model, request_id] = time.monotonic()
        self._refusals.move_to_end((model, request_id))
        if len(self._refusals) > MAX_REFUSALS:
            self._refusals.popitem(last=False)

    def has_refused_others(self, model: str, request_id: str) -> bool:
        """Whether other requests for the model were refused lately: then it is limited, and this one is not bad."""
        since = time.monotonic() - REFUSAL_SECONDS
        return any(at > since and name == model and id_ != request_id for (name, id_), at in self._refusals.items())
