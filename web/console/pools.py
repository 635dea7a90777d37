"""The pools: as configured, without secrets, and as they are now."""

from flask import request
from werkzeug.wrappers import Response as BaseResponse

from web.admin import pools as pool_api
from web.admin.reload.resource import begin_reload, get_reload
from web.admin.schemas.fields import Empty
from web.console.parts.blueprint import blueprint, go_to, render_page

#: Seconds between two looks at a reload that runs.
REFRESH_SECONDS = 1


@blueprint.get("/pools")
def pools() -> str:
    return render_page(
        "pools.html",
        active="pools",
        pools=pool_api.list_pools().data,
        live={pool.name: pool for pool in pool_api.live().pools},
        reload=get_reload(),
        refresh_seconds=REFRESH_SECONDS,
    )


@blueprint.post("/pools/reload")
def reload_settings() -> BaseResponse:
    """Makes the farm read farm.toml again."""
    begin_reload(Empty())
    return go_to("pools")


@blueprint.post("/pools/<name>/pause")
def pause_pool(name: str) -> BaseResponse:
    """Pauses or resumes a pool, by the form's `action`, and goes back to the page that it was on."""
    is_resumed = request.form.get("action") == "resume"
    (pool_api.resume if is_resumed else pool_api.pause)(name, Empty())
    back = "pools" if request.form.get("back") == "pools" else "queue"
    return go_to(back, "pool_resumed" if is_resumed else "pool_paused")
