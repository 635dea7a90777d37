"""Adds accounts by signing in at the upstream: in this browser, or with a code on another device."""

from flask import request
from werkzeug.wrappers import Response as BaseResponse

from shared.sign_in.sign_in import FLOWS
from web.admin import credentials
from web.admin.sign_in import resource
from web.admin.sign_in.schemas import NewSignIn
from web.console.parts.blueprint import blueprint, go_to, render_page
from web.console.parts.lists import read_text

#: Seconds between two looks at sign-ins that nobody has finished yet.
REFRESH_SECONDS = 3


@blueprint.get("/sign-ins")
def sign_ins() -> str:
    listed = resource.list_sign_ins().data
    return render_page(
        "sign_ins.html",
        active="accounts",
        sign_ins=listed,
        chosen=read_text("id"),
        is_waiting=any(sign_in.state == "pending" for sign_in in listed),
        refresh_seconds=REFRESH_SECONDS,
        pools=credentials.list_configured_pools(),
    )


@blueprint.post("/sign-ins")
def begin_sign_in() -> BaseResponse:
    form = request.form
    flow = FLOWS[0] if form.get("flow") == FLOWS[0] else FLOWS[1]
    begun = resource.begin_sign_in(
        NewSignIn(pool=form.get("pool", "")[:100], flow=flow, label=form.get("label", "")[:200])
    )
    return go_to("sign_ins", id=begun.id)


@blueprint.post("/sign-ins/<sign_in_id>/cancel")
def cancel_sign_in(sign_in_id: str) -> BaseResponse:
    resource.cancel_sign_in(sign_in_id)
    return go_to("sign_ins", "sign_in_cancelled")
