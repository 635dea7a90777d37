"""Admin API: what each credential's worker did in the last two minutes."""

import hashlib
from dataclasses import dataclass

from shared import clock
from shared.observability.names_by_id import find_credential_names
from shared.observability.tape import ABSENT, LETTERS, read_tape
from web.admin.api import router
from web.admin.credentials import open_store
from web.admin.telemetry.queue import select_pools
from web.admin.telemetry.schemas import Tape, TapeQuery, TapeRow
from web.services import services


@router.route("GET", "/tape", query=TapeQuery, response=Tape, errors=(404,))
def get_tape(query: TapeQuery) -> Tape:
    """Get a letter per credential and second: what its worker did then.

    A worker that was busy for half of a second counts as busy in it. Of a credential with several slots the busiest
    worker is shown.
    """
    redis, store = services().redis, open_store()
    tape = read_tape(redis, query.seconds)
    states = {pool: store.get_states(pool) for pool in select_pools(query.pool)}
    names = find_credential_names(redis, [id_ for credentials in states.values() for id_ in credentials])
    absent = tape.seconds * ABSENT
    rows = [
        TapeRow(
            credential=id_,
            credential_name=names.get(id_, ""),
            pool=pool,
            state=state,
            letters=tape.letters.get(id_, absent),
        )
        for pool, credentials in states.items()
        for id_, state in sorted(credentials.items())
    ]
    legend = {letter: state for state, letter in LETTERS.items()} | {ABSENT: "no worker"}
    return Tape(begins_at=tape.begins_at, seconds=tape.seconds, legend=legend, data=rows)


@dataclass(frozen=True)
class TapeColumns:
    """The newest seconds of the tape, by column."""

    begins_at: int
    #: Names the credentials and their order, which is that of get_tape's rows.
    order: str
    #: For each second a letter per credential.
    columns: list[str]


def read_newest_columns(seconds: int) -> TapeColumns:
    """The newest seconds, without the last one, of which a process may have yet to report."""
    ids = list_in_order(select_pools(""))
    tape = read_tape(services().redis, seconds, clock.now() - 1)
    absent = tape.seconds * ABSENT
    rows = [tape.letters.get(id_, absent) for id_ in ids]
    return TapeColumns(tape.begins_at, name_order(ids), ["".join(column) for column in zip(*rows, strict=True)])


def list_in_order(pools: list[str]) -> list[str]:
    return [id_ for pool in pools for id_ in sorted(open_store().get_states(pool))]


def name_order(ids: list[str]) -> str:
    return hashlib.sha256(" ".join(ids).encode()).hexdigest()[:16]


def read_row(credential_id: str) -> str:
    """The letters of one credential."""
    tape = read_tape(services().redis)
    return tape.letters.get(credential_id, tape.seconds * ABSENT)
