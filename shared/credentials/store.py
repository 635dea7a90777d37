"""Store of the credentials; it seals refresh tokens and cannot read them back.

set_state.lua changes states atomically, by change_state.lua, as the other scripts do that change them: store_grant.lua
revives a credential that was marked dead while its refresh was succeeding, reconcile_origins.lua enters and leaves
`foreign`, suspend.lua and resume.lua take one out of service for a time, replace_token.lua brings one back.
shared/credentials/records.py lists the fields of a credential.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from redis import Redis
from rq.command import PUBSUB_CHANNEL_TEMPLATE

from shared import clock, keys
from shared.credentials.evidence import NO_EVIDENCE, Evidence
from shared.credentials.importing.entries import Entry, read_entries
from shared.credentials.importing.report import ImportedLine, ImportReport
from shared.credentials.kinds import STRUCTURED_KINDS, find_owner
from shared.credentials.records import (
    ACCOUNT_FIELDS,
    CHANGE_STATE,
    STATES,
    VISIBLE_FIELDS,
    CredentialRecord,
    State,
    StateChange,
    build_name,
    build_record,
    build_state_change,
)
from shared.credentials.removal import Removal, keep_removal, read_removal
from shared.credentials.sealing import Sealer, fingerprint
from shared.errors import NotFound
from shared.names import worker_name
from shared.pacing.account_limits import NO_OWN_LIMITS, OwnLimits
from shared.redis_connection.client import decode_hash, register_script

#: Makes an idle worker look for a job (workers/process/command_listener.py).
LOOK_COMMAND = '{"command":"look"}'
#: New state -> states from which set_state() may enter it; it never reactivates a disabled or dead credential.
ALLOWED_FROM: dict[State, tuple[State, ...]] = {
    "active": ("cooling", "active"),
    "cooling": ("active", "cooling"),
    "dead": ("active", "cooling", "dead"),
    "disabled": STATES,
    "foreign": ("active", "cooling", "foreign"),
}


class Credentials:
    """Store of the credentials of all pools."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        folder = Path(__file__).parent
        self._add_script = register_script(redis, folder / "add_credential.lua")
        self._set_state_script = register_script(redis, CHANGE_STATE, folder / "set_state.lua")
        self._set_fields_script = register_script(redis, folder / "set_fields.lua")
        self._set_limits_script = register_script(redis, folder / "set_limits.lua")
        self._suspend_script = register_script(redis, CHANGE_STATE, folder / "suspend.lua")
        self._resume_script = register_script(redis, CHANGE_STATE, folder / "resume.lua")
        self._replace_script = register_script(redis, CHANGE_STATE, folder / "replace_secret.lua")
        self._remove_script = register_script(redis, folder / "remove_credential.lua")

    def add(
        self, pool: str, token: str, label: str = "", token_origin: str = "", kind: str = "refresh_token"
    ) -> tuple[str, bool]:
        """Stores a refresh token or another kind's secret; returns the credential's id and whether it is new.

        `token_origin` is that of the token endpoint that it was given for, '' if not known (token_origin.py).
        """
        sealer = Sealer.load(self._redis)
        credential_id, outcome = self._add_or_replace(sealer, pool, token, label, token_origin, kind=kind)
        return credential_id, outcome == "added"

    def restore(self, exported: Mapping[str, Any]) -> bool:
        """Stores an exported credential under its id and in its state; returns False if it is there already."""
        state: State = exported["state"] if exported["state"] in ("disabled", "dead") else "active"
        return self._seal_and_add(
            Sealer.load(self._redis),
            exported["pool"],
            exported["refresh_token"],
            exported["label"],
            exported.get("token_origin", ""),
            credential_id=exported["id"],
            state=state,
            reason=exported["reason"] if state != "active" else "",
            kind=exported.get("kind", "refresh_token"),
            account={name: exported[name] for name in ACCOUNT_FIELDS if exported.get(name)},
            own_limits=OwnLimits.read(exported),
        )[1]

    def _add_or_replace(
        self, sealer: Sealer, pool: str, secret: str, label: str, token_origin: str, kind: str
    ) -> tuple[str, str]:
        """Stores a secret, as that of its client or service account where the pool has that already.

        Returns the credential's id and the outcome: `added`, `replaced` or `duplicate`.
        """
        credential_id, is_new = self._seal_and_add(sealer, pool, secret, label, token_origin, kind=kind)
        if is_new or kind not in STRUCTURED_KINDS:
            return credential_id, "added" if is_new else "duplicate"
        is_replaced = self._replace_script(
            keys=[
                *(keys.credential(credential_id), keys.credentials(pool)),
                *(keys.fingerprints(pool), keys.history(credential_id)),
            ],
            args=[credential_id, sealer.seal(secret, credential_id), fingerprint(secret), clock.now()],
        )
        return credential_id, "replaced" if is_replaced else "duplicate"

    def _seal_and_add(
        self,
        sealer: Sealer,
        pool: str,
        token: str,
        label: str,
        token_origin: str,
        credential_id: str = "",
        state: State = "active",
        reason: str = "",
        kind: str = "refresh_token",
        account: Mapping[str, str] = MappingProxyType({}),
        own_limits: OwnLimits = NO_OWN_LIMITS,
    ) -> tuple[str, bool]:
        """`account` has the ACCOUNT_FIELDS, if it is known whose the credential is."""
        credential_id = credential_id or secrets.token_hex(5)
        fields = build_fields(sealer, token, credential_id, pool, label, token_origin)
        fields |= {"kind": kind} if kind != "refresh_token" else {}
        owner = find_owner(kind, token)
        account = account or ({"identity": fingerprint(owner)} if owner else {})
        pairs = [part for pair in {**fields, **account, "reason": reason}.items() for part in pair]
        script_keys = [keys.fingerprints(pool), keys.credentials(pool), keys.credential(credential_id)]
        reply = self._add_script(
            keys=[*script_keys, keys.accounts(pool), keys.CREDENTIAL_LIMITS],
            args=[credential_id, fingerprint(token), state, account.get("identity", ""), own_limits.encode(), *pairs],
        )
        existing_id = cast("bytes", reply).decode()
        return (existing_id, False) if existing_id else (credential_id, True)

    def import_lines(self, pool: str, lines: Iterable[str], label: str = "", token_origin: str = "") -> ImportReport:
        """Stores the refresh tokens in the lines; see import_entries."""
        return self.import_entries(pool, read_entries(list(lines)), label, token_origin)

    def import_entries(
        self, pool: str, entries: Iterable[Entry], label: str = "", token_origin: str = "", kind: str = "refresh_token"
    ) -> ImportReport:
        """Stores the secrets of entries, given for the token endpoint of that origin ('' if not known)."""
        sealer = Sealer.load(self._redis)

        def add(secret: str) -> tuple[str, str]:
            return self._add_or_replace(sealer, pool, secret, label, token_origin, kind=kind)

        return ImportReport(tuple(import_entry(entry, add) for entry in entries))

    def preview_import(self, pool: str, entries: Iterable[Entry], kind: str = "refresh_token") -> ImportReport:
        """What an import would do; nothing is stored."""
        seen: set[str] = set()

        def find(secret: str) -> tuple[str, str]:
            digest, owner = fingerprint(secret), find_owner(kind, secret)
            same_secret = self._redis.hget(keys.fingerprints(pool), digest)
            if same_secret or digest in seen:
                return (same_secret or b"").decode(), "duplicate"
            same_owner = self._redis.hget(keys.accounts(pool), fingerprint(owner)) if owner else None
            is_known = bool(same_owner) or (bool(owner) and owner in seen)
            seen.update((digest, owner))
            return (same_owner or b"").decode(), "replaced" if is_known else "added"

        return ImportReport(tuple(import_entry(entry, find) for entry in entries))

    def get_states(self, pool: str) -> dict[str, str]:
        """Credential id -> state."""
        return decode_hash(self._redis.hgetall(keys.credentials(pool)))

    def list(self, pools: Iterable[str]) -> list[CredentialRecord]:
        """All credentials of the pools, ordered by pool, then oldest first."""
        names = list(pools)
        with self._redis.pipeline(transaction=False) as pipe:
            for pool in names:
                pipe.hgetall(keys.credentials(pool))
            by_pool = zip(names, map(decode_hash, pipe.execute()), strict=True)
        records = self.read([(pool, id_, state) for pool, states in by_pool for id_, state in states.items()])
        return sorted(records, key=lambda record: (record.pool, record.added_at, record.id))

    def read(self, credentials: Sequence[tuple[str, str, str]]) -> tuple[CredentialRecord, ...]:
        """The records of credentials that are given by pool, id and state, in their order."""
        if not credentials:
            return ()
        ids = [credential_id for _, credential_id, _ in credentials]
        with self._redis.pipeline(transaction=False) as pipe:
            for credential_id in ids:
                pipe.hmget(keys.credential(credential_id), VISIBLE_FIELDS)
                pipe.hgetall(keys.resting_models(credential_id))
            pipe.mget([keys.lease(credential_id) for credential_id in ids])
            pipe.hmget(keys.CREDENTIAL_LIMITS, ids)
            *replies, leases, own_limits = pipe.execute()
        return tuple(
            build_record(*credential, values, lease, rests, limits)
            for credential, values, rests, lease, limits in zip(
                credentials, replies[::2], replies[1::2], leases, own_limits, strict=True
            )
        )

    def get(self, credential_id: str, pools: Iterable[str]) -> CredentialRecord:
        """Raises NotFound."""
        return self.get_all([credential_id], pools)[0]

    def get_all(self, credential_ids: Iterable[str], pools: Iterable[str]) -> tuple[CredentialRecord, ...]:
        """The credentials in the order of the ids. Raises NotFound if one is missing, and says what is known of it."""
        ids = list(credential_ids)
        with self._redis.pipeline(transaction=False) as pipe:
            for credential_id in ids:
                pipe.hget(keys.credential(credential_id), "pool")
            names = [(name or b"").decode() for name in pipe.execute()]
            for name, credential_id in zip(names, ids, strict=True):
                pipe.hget(keys.credentials(name), credential_id)
            states = [(state or b"").decode() for state in pipe.execute()]
        found, wanted = list(zip(names, ids, states, strict=True)), set(pools)
        for name, credential_id, state in found:
            if name not in wanted or not state:
                removal = read_removal(self._redis, credential_id)
                known = f": {removal.describe()}" if removal else ""
                raise NotFound(f"no credential {credential_id!r}{known}")
        return self.read(found)

    def set_state(
        self,
        pool: str,
        credential_id: str,
        state: State,
        reason: str = "",
        until: float = 0,
        evidence: Evidence = NO_EVIDENCE,
    ) -> bool:
        """Changes the state, as ALLOWED_FROM permits; returns False if the current state forbids it."""
        return self._change_state(pool, credential_id, state, ALLOWED_FROM[state], reason, until, evidence)

    def enable(self, pool: str, credential_id: str) -> bool:
        """Makes a credential active from any state, on an operator's request; earlier refusals count no more."""
        self._redis.hdel(keys.credential(credential_id), "refusals")
        if self._redis.delete(keys.resting_models(credential_id)):
            self._redis.publish(PUBSUB_CHANNEL_TEMPLATE % worker_name(pool, credential_id), LOOK_COMMAND)
        return self._change_state(pool, credential_id, "active", STATES)

    def disable(self, pool: str, credential_id: str) -> bool:
        """Takes a credential out of service, on an operator's request; returns False if its state forbids it."""
        return self.set_state(pool, credential_id, "disabled", "by a person")

    def _change_state(
        self,
        pool: str,
        credential_id: str,
        state: State,
        allowed_from: tuple[State, ...],
        reason: str = "",
        until: float = 0,
        evidence: Evidence = NO_EVIDENCE,
    ) -> bool:
        wait = "" if evidence.retry_after is None else evidence.retry_after
        changed = self._set_state_script(
            keys=[keys.credentials(pool), keys.credential(credential_id), keys.history(credential_id)],
            args=[
                *(credential_id, state, reason, until or "", clock.now(), f",{','.join(allowed_from)},"),
                *(evidence.encode(), wait),
            ],
        )
        return bool(changed)

    def suspend(self, pool: str, credential_id: str, reason: str) -> bool:
        """Disables a credential and keeps its former state for `resume`; False if it does not exist."""
        script_keys = [keys.credentials(pool), keys.credential(credential_id), keys.history(credential_id)]
        return bool(self._suspend_script(keys=script_keys, args=[credential_id, reason, clock.now()]))

    def resume(self, pool: str, credential_id: str) -> bool:
        """Puts a suspended credential back into its former state; False if its state has been set since."""
        script_keys = [keys.credentials(pool), keys.credential(credential_id), keys.history(credential_id)]
        return bool(self._resume_script(keys=script_keys, args=[credential_id, clock.now()]))

    def record_export(self, credential_ids: Iterable[str]) -> None:
        """Records that the refresh tokens are exported; a later rotation marks the export as outdated.

        To be called before they are read, so that a rotation in between is not missed.
        """
        with self._redis.pipeline(transaction=False) as pipe:
            for credential_id in credential_ids:
                self._set_fields_script(
                    keys=[keys.credential(credential_id)],
                    args=["export_outdated", "exported_at", clock.now()],
                    client=pipe,
                )
            pipe.execute()

    def withdraw_export(self, records: Iterable[CredentialRecord]) -> None:
        """Undoes `record_export` after an export that failed; `records` are from before it."""
        with self._redis.pipeline(transaction=False) as pipe:
            for record in records:
                if not record.exported_at:
                    pipe.hdel(keys.credential(record.id), "exported_at", "export_outdated")
                    continue
                fields = ("export_outdated", 1) if record.export_outdated else ()
                self._set_fields_script(
                    keys=[keys.credential(record.id)],
                    args=["", "exported_at", record.exported_at, *fields],
                    client=pipe,
                )
            pipe.execute()

    def set_label(self, pool: str, credential_id: str, label: str) -> bool:
        """Changes the operator's note; returns False if the credential does not exist."""
        if not self._redis.hexists(keys.credentials(pool), credential_id):
            return False
        return bool(self._set_fields_script(keys=[keys.credential(credential_id)], args=["", "label", label]))

    def set_limits(self, credential_id: str, limits: Mapping[str, float | None]) -> bool:
        """Changes limits of the account's own, by name; None leaves a limit to the pool, 0 stands for no limit.

        They are in force from the account's next request. Returns False if the credential does not exist.
        """
        pairs = [part for name, value in limits.items() for part in (name, "" if value is None else value)]
        script_keys = [keys.credential(credential_id), keys.CREDENTIAL_LIMITS]
        return bool(self._set_limits_script(keys=script_keys, args=[credential_id, *pairs]))

    def get_history(self, credential_id: str) -> tuple[StateChange, ...]:
        """The last hundred or so changes of its state, and of the reason for it, newest first."""
        entries = self._redis.xrevrange(keys.history(credential_id))
        return tuple(build_state_change(int(id_.partition(b"-")[0]) / 1000, values) for id_, values in entries)

    def remove(self, pool: str, credential_id: str, by: str = "") -> bool:
        """Deletes a credential and its tokens; returns False if it does not exist.

        Keeps its name, and that it was removed now and `by` whom, as in the audit log.
        """
        label, account = self._redis.hmget(keys.credential(credential_id), "label", "account")
        script_keys = [keys.credentials(pool), keys.credential(credential_id), keys.fingerprints(pool)]
        script_keys += [keys.history(credential_id), keys.accounts(pool), keys.CREDENTIAL_LIMITS]
        script_keys.append(keys.resting_models(credential_id))
        script_keys += keys.pace_keys(credential_id)
        script_keys.append(keys.activity(credential_id))
        is_removed = bool(self._remove_script(keys=script_keys, args=[credential_id]))
        if is_removed:
            keep_removal(self._redis, credential_id, Removal(build_name(label, account), pool, clock.now(), by))
        return is_removed


def import_entry(entry: Entry, add: Callable[[str], tuple[str, str]]) -> ImportedLine:
    """The outcome of an entry; `add` stores its secret and returns the credential's id and the outcome."""
    if entry.outcome != "token":
        return ImportedLine(entry.line, entry.outcome, reason=entry.problem)
    credential_id, outcome = add(entry.secret)
    return ImportedLine(entry.line, outcome, credential_id)


def build_fields(
    sealer: Sealer, token: str, credential_id: str, pool: str, label: str, token_origin: str
) -> dict[str, Any]:
    now = clock.now()
    return {
        "fingerprint": fingerprint(token),
        "origin": fingerprint(token),
        "pool": pool,
        "label": label,
        "token_origin": token_origin,
        "sealed": sealer.seal(token, credential_id),
        "added_at": now,
        "state_since": now,
    }
