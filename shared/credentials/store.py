"""The store of credentials: refresh tokens go in sealed and never come out here; states are moved by one script.

Its fields: `pool`, `label`, `sealed` (the refresh token), `fingerprint` (of the present token), `origin` (of the token
as imported, so that a file imported again is known), `added_at`, `rotations`, `access` and `access_expires`
(sealed access token), `refreshed_at`, `reason`, `until`, `state_since`, `fence`.
"""

import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from redis import Redis

from shared import keys
from shared.credentials.records import STATES, VISIBLE_FIELDS, CredentialRecord, State, StateChange, build_record
from shared.credentials.sealing import Sealer, fingerprint
from shared.credentials.token_import import ImportedLine, ImportReport, classify_lines
from shared.errors import NotFound
from shared.redis_connection.client import decode_hash, register_script

#: States a credential may leave for the one named. A person's word and death are not revived by the program.
ALLOWED_FROM: dict[State, tuple[State, ...]] = {
    "active": ("cooling", "active"),
    "cooling": ("active", "cooling"),
    "dead": ("active", "cooling", "dead"),
    "disabled": STATES,
}


class Credentials:
    """The credentials of every pool, for those who may not read a token."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._add = register_script(redis, Path(__file__).with_name("add_credential.lua"))
        self._set_state_script = register_script(redis, Path(__file__).with_name("set_state.lua"))
        self._remove = register_script(redis, Path(__file__).with_name("remove_credential.lua"))

    def add(self, pool: str, token: str, label: str = "", credential_id: str = "") -> tuple[str, bool]:
        """Stores a refresh token, under that id if one is given; returns its credential's id and whether it is new."""
        return self._add_sealed(Sealer.load(self._redis), pool, token, label, credential_id)

    def _add_sealed(
        self, sealer: Sealer, pool: str, token: str, label: str, credential_id: str = ""
    ) -> tuple[str, bool]:
        credential_id = credential_id or secrets.token_hex(5)
        fields = build_fields(sealer, token, credential_id, pool, label)
        pairs = [part for pair in fields.items() for part in pair]
        known = self._add(
            keys=[keys.fingerprints(pool), keys.credentials(pool), keys.credential(credential_id)],
            args=[credential_id, fingerprint(token), *pairs],
        )
        found = cast("bytes", known).decode()
        return (found, False) if found else (credential_id, True)

    def import_lines(self, pool: str, lines: Iterable[str], label: str = "") -> ImportReport:
        """Adds one refresh token per line; trims, and tells what became of each."""
        sealer = Sealer.load(self._redis)
        report = []
        for number, (outcome, token) in enumerate(classify_lines(lines), 1):
            if outcome != "token":
                report.append(ImportedLine(number, outcome))
                continue
            credential_id, new = self._add_sealed(sealer, pool, token, label)
            report.append(ImportedLine(number, "added" if new else "duplicate", credential_id))
        return ImportReport(tuple(report))

    def get_states(self, pool: str) -> dict[str, str]:
        """Credential id -> state."""
        return decode_hash(self._redis.hgetall(keys.credentials(pool)))

    def list(self, pools: Iterable[str]) -> list[CredentialRecord]:
        """Every credential of the pools, oldest first."""
        known = [(pool, one, state) for pool in pools for one, state in self.get_states(pool).items()]
        with self._redis.pipeline(transaction=False) as pipe:
            for _, credential_id, _ in known:
                pipe.hmget(keys.credential(credential_id), VISIBLE_FIELDS)
                pipe.get(keys.lease(credential_id))
            answers = pipe.execute()
        records = [
            build_record(pool, credential_id, state, answers[2 * i], answers[2 * i + 1])
            for i, (pool, credential_id, state) in enumerate(known)
        ]
        return sorted(records, key=lambda r: (r.pool, r.added_at, r.id))

    def get(self, credential_id: str, pools: Iterable[str]) -> CredentialRecord:
        """One credential by its id. Raises NotFound."""
        return self.get_all([credential_id], pools)[0]

    def get_all(self, credential_ids: Iterable[str], pools: Iterable[str]) -> tuple[CredentialRecord, ...]:
        """Those of these ids, in that order, with one look at the store. Raises NotFound when one is missing."""
        known = {one.id: one for one in self.list(pools)}
        try:
            return tuple(known[credential_id] for credential_id in credential_ids)
        except KeyError as error:
            raise NotFound(f"no credential {error.args[0]!r}") from None

    def set_state(self, pool: str, credential_id: str, state: State, reason: str = "", until: float = 0) -> bool:
        """Moves a credential to a state; False when the state it is in forbids that."""
        return self._change_state(pool, credential_id, state, ALLOWED_FROM[state], reason, until)

    def enable(self, pool: str, credential_id: str) -> bool:
        """A person's word: active again, from whatever state."""
        return self._change_state(pool, credential_id, "active", STATES, "", 0)

    def _change_state(
        self, pool: str, credential_id: str, state: State, leave: tuple[State, ...], reason: str, until: float
    ) -> bool:
        moved = self._set_state_script(
            keys=[keys.credentials(pool), keys.credential(credential_id), keys.history(credential_id)],
            args=[credential_id, state, reason, until or "", time.time(), f",{','.join(leave)},"],
        )
        return bool(moved)

    def record_export(self, credential_ids: Iterable[str]) -> None:
        """Their tokens have left the farm: when the upstream rotates one, what was exported is good no more."""
        with self._redis.pipeline(transaction=False) as pipe:
            for credential_id in credential_ids:
                pipe.hset(keys.credential(credential_id), "exported_at", time.time())
                pipe.hdel(keys.credential(credential_id), "export_outdated")
            pipe.execute()

    def force_state(self, pool: str, credential_id: str, state: State, reason: str) -> bool:
        """Puts a credential into a state, whatever it is in: as it was on another farm."""
        return self._change_state(pool, credential_id, state, STATES, reason, 0)

    def set_label(self, pool: str, credential_id: str, label: str) -> bool:
        """Changes the note to recognise it by; False when it is gone."""
        if not self._redis.hexists(keys.credentials(pool), credential_id):
            return False
        self._redis.hset(keys.credential(credential_id), "label", label)
        return True

    def history(self, credential_id: str) -> tuple[StateChange, ...]:
        """Its states, newest first, the last hundred or so."""
        found = self._redis.xrevrange(keys.history(credential_id))
        return tuple(
            StateChange(int(id_.partition(b"-")[0]) / 1000, values[b"state"].decode(), values[b"reason"].decode())
            for id_, values in found
        )

    def remove(self, pool: str, credential_id: str) -> bool:
        """Forgets a credential and its tokens; False when there is none."""
        names = [keys.credentials(pool), keys.credential(credential_id), keys.fingerprints(pool)]
        names.append(keys.history(credential_id))
        return bool(self._remove(keys=names, args=[credential_id]))


def build_fields(sealer: Sealer, token: str, credential_id: str, pool: str, label: str) -> dict[str, Any]:
    """The fields of a new credential, its token sealed."""
    now = time.time()
    return {
        "fingerprint": fingerprint(token),
        "origin": fingerprint(token),
        "pool": pool,
        "label": label,
        "sealed": sealer.seal(token, credential_id),
        "added_at": now,
        "state_since": now,
    }
