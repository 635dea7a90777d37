"""Writes credential states to the store, and logs and counts the changes."""

import logging
from typing import cast

from shared import names
from shared.credentials.evidence import Evidence
from shared.credentials.records import State
from shared.credentials.store import Credentials
from shared.observability.counters import Counters

log = logging.getLogger("farm.process")


class CredentialStates:
    """Sets the states that workers detect; a state set by an operator is never overridden."""

    def __init__(self, credentials: Credentials, counters: Counters) -> None:
        self._credentials = credentials
        self._counters = counters

    def set(self, pool: str, credential_id: str, state: str, reason: str, until: float, evidence: Evidence) -> None:
        """Sets the state if the present one allows it. `until` is the end of a cooldown, seconds since the epoch."""
        changed = self._credentials.set_state(pool, credential_id, cast("State", state), reason, until, evidence)
        fields = {"credential_id": credential_id, "pool": pool, "reason": reason, "evidence": evidence.encode() or None}
        if not changed:
            log.info("state unchanged: an operator has set it", extra={**fields, "action": "state_kept"})
            return
        # Codes of token endpoints are no label: there may be any number of them.
        label = reason.partition(":")[0]
        self._counters.increment("credential_changes", names.configured_pool(pool), state, label)
        level = logging.WARNING if state == "dead" else logging.INFO
        log.log(level, "credential is %s", state, extra={**fields, "action": f"credential_{state}", "until": until})
