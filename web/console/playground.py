"""The playground: ask a model, and watch what the farm does."""

from itertools import chain, islice

from shared.observability.names_by_id import find_credential_names
from web.admin.credentials import list_configured_pools, open_store
from web.admin.models import list_known_models
from web.admin.playground.schemas import MAX_TEXT_LENGTH
from web.console.parts.base_url import find_base_url
from web.console.parts.blueprint import blueprint, render_page
from web.console.parts.lists import read_text
from web.services import services

#: Accounts that the page proposes; any other is chosen by its id.
PROPOSED_ACCOUNTS = 200


@blueprint.get("/playground")
def playground() -> str:
    known = list_known_models()
    models = dict.fromkeys(chain.from_iterable(names for _, names in known))
    return render_page(
        "playground.html",
        active="playground",
        models=list(models),
        is_list_missing=not all(names for _, names in known),
        model=read_text("model") or next(iter(models), ""),
        pools=list_configured_pools(),
        pool=read_text("pool"),
        accounts=propose_accounts(),
        credential=read_text("credential"),
        base_url=find_base_url(),
        max_length=MAX_TEXT_LENGTH,
    )


def propose_accounts() -> dict[str, str]:
    """Id -> label or masked account."""
    states = chain.from_iterable(open_store().get_states(pool) for pool in list_configured_pools())
    ids = list(islice(states, PROPOSED_ACCOUNTS))
    return find_credential_names(services().redis, ids)
