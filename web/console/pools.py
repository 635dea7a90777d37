"""The pools: as configured, without secrets, and as they are now."""

from web.admin import pools as pool_api
from web.console.parts.blueprint import blueprint, render_page


@blueprint.get("/pools")
def pools() -> str:
    return render_page(
        "pools.html",
        active="pools",
        pools=pool_api.list_pools().data,
        live={pool.name: pool for pool in pool_api.live().pools},
    )
