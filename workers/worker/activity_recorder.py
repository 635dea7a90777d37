"""Counts in memory what the credentials of this process do; written to Redis every few seconds, not per request."""

from collections.abc import Mapping
from dataclasses import dataclass

from redis.exceptions import RedisError

from shared import clock
from shared.credentials.activity.activity import ActivityStore, Gains
from shared.credentials.activity.allowance import Allowance
from shared.credentials.activity.attempt_counts import SlotCounts, find_bucket, slot_start
from shared.credentials.evidence import UPSTREAM, Evidence
from workers.upstream.allowance import find_left

#: Seconds between two flushes, by which what operators see is late.
FLUSH_INTERVAL_SECONDS = 5.0


@dataclass
class UnreadGains(Gains):
    """Gains, and when which headers have last said what is left."""

    limits: tuple[float, Mapping[str, str]] | None = None


def note_allowance(gains: UnreadGains) -> None:
    """Turns the headers into a field."""
    if gains.limits:
        at, headers = gains.limits
        if left := find_left(headers, at):
            gains.fields["allowance"] = Allowance(at, left).encode()
        gains.limits = None


class ActivityRecorder:
    """The activity of all credentials of this process since the last flush."""

    def __init__(self) -> None:
        #: Credential -> what it has done.
        self._gains: dict[str, UnreadGains] = {}

    def gains_of(self, credential_id: str) -> UnreadGains:
        gains = self._gains.get(credential_id)
        if gains is None:
            gains = self._gains[credential_id] = UnreadGains()
        return gains

    def flush(self, store: ActivityStore) -> None:
        """Writes what is new. Raises RedisError; then counts are lost, because they may have been added, and only the
        latest values are written again.
        """
        gains, self._gains = self._gains, {}
        try:
            for gain in gains.values():
                note_allowance(gain)
            if gains:
                store.record(gains)
        except RedisError:
            for credential_id, lost in gains.items():
                newer = self.gains_of(credential_id)
                newer.fields = lost.fields | newer.fields
            raise


class CredentialActivity:
    """What one credential does, as its workers tell."""

    def __init__(self, recorder: ActivityRecorder, credential_id: str) -> None:
        self._recorder = recorder
        self._credential_id = credential_id

    def record_served(self, first_byte_seconds: float, ended_at: float) -> None:
        """An attempt was served. `ended_at`: seconds since the epoch."""
        gains = self._recorder.gains_of(self._credential_id)
        gains.fields["used_at"] = ended_at
        start = slot_start(ended_at)
        counts = gains.slots.get(start) or gains.slots.setdefault(start, SlotCounts())
        counts.served += 1
        counts.first_bytes[find_bucket(first_byte_seconds)] += 1

    def record_used(self) -> None:
        """An attempt has ended that says nothing about the credential: its caller has gone, or was at fault."""
        self._recorder.gains_of(self._credential_id).fields["used_at"] = clock.now()

    def record_failure(self, outcome: str, evidence: Evidence, *, is_attempt: bool) -> None:
        """An attempt or a token request has failed. Only what the upstream has failed counts among the attempts."""
        now, gains = clock.now(), self._recorder.gains_of(self._credential_id)
        gains.fields |= {"failed_at": now, "failed_outcome": outcome, "failed_evidence": evidence.encode()}
        if not is_attempt:
            return
        gains.fields["used_at"] = now
        if evidence.source == UPSTREAM:
            gains.slots.setdefault(slot_start(now), SlotCounts()).failed += 1

    def record_limits(self, headers: Mapping[str, str], answered_at: float) -> None:
        """The headers in which a response of that time has said what is left; read only when they are flushed."""
        self._recorder.gains_of(self._credential_id).limits = (answered_at, headers)
