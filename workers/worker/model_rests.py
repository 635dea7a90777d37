"""The models for which a credential rests, because its account was limited for them (docs/scheduling.md)."""

import logging

from redis.exceptions import RedisError

from shared import clock, keys
from shared.settings.schema import PoolSettings
from workers.credentials.account_limits.verdict import GO_ON, PER_ACCOUNT, PER_MODEL, TRY, WAIT, LimitVerdict
from workers.credentials.cooldown import Cooldown
from workers.credentials.leases import Lease
from workers.worker.services import WorkerServices

log = logging.getLogger("farm.worker")
#: Longest rest in seconds after a 429 that doesn't say how long to wait.
MAX_UNTIMED_SECONDS = 60.0
#: Rests in seconds that are too short to find out for whether they are the model's.
MIN_EXPLAINED_SECONDS = 2.0
#: Models remembered per credential.
MAX_MODELS = 100


class ModelRests:
    """The rests of one credential. The scripts go by what is in Redis; here is what prolongs and takes back rests."""

    def __init__(self, lease: Lease, pool: PoolSettings, services: WorkerServices) -> None:
        self._id = lease.credential_id
        self._pool = pool
        self._services = services
        self._cooldowns: dict[str, Cooldown] = {}
        #: Model -> when its rest was recorded, seconds since the epoch.
        self._recorded_at: dict[str, float] = {}
        #: Whether the credential may rest as a whole because of a model.
        self._may_explain = bool(lease.cooling_until)
        #: Whether it tries another model now.
        self.is_trying = False

    @property
    def _setting(self) -> str:
        return self._pool.account_limits

    @property
    def _verdict(self) -> LimitVerdict:
        return self._services.limit_verdicts[self._pool.name]

    @property
    def has_rested(self) -> bool:
        """Whether a served request may tell something: the credential rests, has rested, or tries another model."""
        return bool(self._cooldowns) or self.is_trying

    def is_resting(self, model: str) -> bool:
        """Whether the credential rests for the model, and goes on with others."""
        cooldown = self._cooldowns.get(model)
        return bool(cooldown and cooldown.remaining()) and self._verdict.is_per_model(self._setting)

    def has_refused_others(self, model: str, request_id: str) -> bool:
        """Whether the model is known to be limited, because other requests for it were refused, too."""
        return self._verdict.is_per_model(self._setting) and self._verdict.has_refused_others(model, request_id)

    def rest(self, model: str, seconds: float) -> bool:
        """The upstream says that nothing is left for so long. Returns whether only the model rests."""
        is_short = seconds < MIN_EXPLAINED_SECONDS and not self._verdict.is_per_model(self._setting)
        if not self._is_recorded(model) or (is_short and not self._verdict.is_stale()):
            return False
        self._find_cooldown(model).extend(seconds)
        return self._record(model, always=not is_short)

    def refuse(self, model: str, retry_after: float | None, request_id: str) -> bool:
        """The upstream has refused a request for the model with 429. Returns whether only the model rests."""
        if not self._is_recorded(model):
            return False
        self._verdict.note_refusal(model, request_id)
        cooldown = self._find_cooldown(model)
        cooldown.begin(retry_after, MAX_UNTIMED_SECONDS, request_id)
        is_only_model = self._record(model, always=retry_after is not None, was_refused=True)
        if retry_after is None and not is_only_model:
            cooldown.take_back(request_id)
        return is_only_model

    def explain(self, model: str, seconds: float) -> None:
        """The credential rests as a whole for so long, because of a 429 for the model."""
        if self._is_recorded(model) and seconds >= MIN_EXPLAINED_SECONDS:
            self._find_cooldown(model).extend(seconds)
            self._record(model)

    def _is_recorded(self, model: str) -> bool:
        return bool(model) and self._setting != PER_ACCOUNT

    def _find_cooldown(self, model: str) -> Cooldown:
        if len(self._cooldowns) >= MAX_MODELS:
            self._cooldowns = {name: each for name, each in self._cooldowns.items() if each.remaining()}
        return self._cooldowns.setdefault(model, Cooldown(self._services.settings.cooling_limit))

    def _record(self, model: str, *, always: bool = True, was_refused: bool = False) -> bool:
        """Records the rest for the scripts, before the job is settled. Returns whether only the model rests."""
        until = clock.now() + self._cooldowns[model].remaining()
        was_trial, self.is_trying = self.is_trying and was_refused, self.is_trying and not was_refused
        try:
            verdict = self._verdict.record_rest(
                self._id, model, until, self._setting, was_trial=was_trial, was_refused=was_refused, always=always
            )
        except RedisError as error:
            log.warning("rest not recorded: %s", error, extra=self._log_fields("redis_lost", model))
            return False
        self._recorded_at[model] = clock.now()
        self._may_explain = self._may_explain or (verdict != PER_MODEL and always)
        if verdict == PER_MODEL:
            log.info("the credential rests for a model", extra=self._log_fields("model_rests", model))
        return verdict == PER_MODEL

    def record_served(self, model: str, attempted_at: float) -> bool:
        """A request for the model, sent at that time (seconds since the epoch), was served.

        Returns whether this has shown that the credential need not rest as a whole.
        """
        if cooldown := self._cooldowns.get(model):
            cooldown.reset_failures()
        was_trial, self.is_trying = self.is_trying, False
        if self._setting != "auto" or not (was_trial or self._is_confirmation(model, attempted_at)):
            return False
        try:
            self._verdict.record_served(self._id, was_trial=was_trial)
        except RedisError as error:
            log.warning("verdict not recorded: %s", error, extra=self._log_fields("redis_lost", model))
            return False
        return was_trial

    def _is_confirmation(self, model: str, attempted_at: float) -> bool:
        """Whether the credential rested for another model when the request was sent, and still does."""
        return self._verdict.is_per_model(self._setting) and any(
            other != model and cooldown.remaining() and self._recorded_at.get(other, float("inf")) < attempted_at
            for other, cooldown in self._cooldowns.items()
        )

    def decide(self, remaining: float) -> str:
        """What the credential does that rests as a whole for so many seconds: GO_ON, TRY or WAIT."""
        if not self._may_explain or self._setting == PER_ACCOUNT:
            return WAIT
        try:
            decision = self._verdict.decide(self._id, clock.now() + remaining, self._setting)
        except RedisError:
            return WAIT
        if decision not in (GO_ON, TRY, WAIT):
            self._may_explain = False
            return WAIT
        self.is_trying = decision == TRY
        return decision

    def end_trial(self) -> None:
        """The trial is over; if it has said nothing, another credential may try."""
        if self.is_trying:
            self.is_trying = False
            self._verdict.end_trial(self._id)

    def take_back(self, request_id: str) -> bool:
        """Takes back what a request has caused that was at fault itself. Returns whether a rest has become shorter."""
        changed = False
        for model, cooldown in self._cooldowns.items():
            before = cooldown.remaining()
            cooldown.take_back(request_id)
            if cooldown.remaining() < before:
                changed = True
                self._shorten(model, cooldown.remaining())
        return changed

    def _shorten(self, model: str, remaining: float) -> None:
        name = keys.resting_models(self._id)
        try:
            if remaining:
                self._services.redis.hset(name, model, clock.now() + remaining)
            else:
                self._services.redis.hdel(name, model)
        except RedisError as error:
            log.warning("rest not taken back: %s", error, extra=self._log_fields("redis_lost", model))

    def forget(self) -> None:
        """An operator has enabled the credential, which deletes its rests in Redis."""
        self._cooldowns.clear()
        self._recorded_at.clear()

    def _log_fields(self, action: str, model: str) -> dict[str, str]:
        return {"action": action, "credential_id": self._id, "pool": self._pool.name, "reason": model}
