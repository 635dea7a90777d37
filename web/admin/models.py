"""Admin API: the models that the farm serves, and which of them an API key may use."""

from itertools import chain

import gevent

from shared.api_keys.api_key import matches_any
from shared.errors import ApiError
from shared.settings.schema import PoolSettings
from web.admin.api import router
from web.admin.schemas.models import ModelList, ModelQuery, ServedModel
from web.model_lists import list_configured, load_models
from web.services import services


@router.route("GET", "/models", query=ModelQuery, response=ModelList, errors=(502,))
def list_served_models(query: ModelQuery) -> ModelList:
    """List the models of all pools, and which of them match the patterns of an API key.

    A pool without configured models asks its upstream; one whose list can't be had now is left out.
    """
    pools = list(services().pool_selector)
    loads = [gevent.spawn(load_models, services().model_lists, pool) for pool in pools]
    found = [
        (pool, [str(model.get("id")) for model in models])
        for pool, load in zip(pools, loads, strict=True)
        if not isinstance(models := load.get(), ApiError)
    ]
    return match_models(found, split_patterns(query.models), split_patterns(query.pools))


def list_known_models() -> list[tuple[PoolSettings, list[str]]]:
    """The models of each pool that are known without asking its upstream."""
    model_lists = services().model_lists
    return [
        (pool, [str(model.get("id")) for model in list_configured(pool) or model_lists.find_known(pool.name)])
        for pool in services().pool_selector
    ]


def match_models(
    found: list[tuple[PoolSettings, list[str]]], models: tuple[str, ...], pools: tuple[str, ...]
) -> ModelList:
    """Each model once per pool, with whether a key of these patterns may use it there."""
    served = [
        ServedModel(
            model=name,
            pool=pool.configured_name,
            matches=matches_any(name, models) and matches_any(pool.configured_name, pools),
        )
        for pool, name in chain.from_iterable(((pool, name) for name in names) for pool, names in found)
    ]
    names = {model.model for model in served}
    return ModelList(data=served, total=len(names), matching=len({model.model for model in served if model.matches}))


def split_patterns(text: str) -> tuple[str, ...]:
    """Patterns that white space or commas separate."""
    return tuple(text.replace(",", " ").split())
