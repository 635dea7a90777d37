"""Admin API: what each credential's worker did in the last two minutes."""

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
