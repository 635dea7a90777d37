"""The page to which an authorization server sends the browser back.

It is open to everybody (within FARM_ADMIN_NETWORKS): the session cookie is SameSite=Strict and would not come along,
and the owner of an account need not be an operator. The `state` proves that the farm has asked for this answer.
"""

from flask import Blueprint, Response, render_template, request

from shared.errors import FarmError, NotFound
from shared.protocol.credential_operations import CredentialOperation
from shared.sign_in.sign_in import ANSWER_OPERATION, CALLBACK_PATH, SignIn
from shared.sign_in.sign_ins import SignIns
from web.services import services

#: Characters of a parameter that are taken, and parameters.
MAX_LENGTH, MAX_PARAMETERS = 4096, 20
blueprint = Blueprint("sign_in", __name__, template_folder="../templates")


@blueprint.get(CALLBACK_PATH)
def callback() -> Response:
    """Hands the answer to a worker process, and shows what became of it."""
    answer = {name: value[:MAX_LENGTH] for name, value in list(request.args.items())[:MAX_PARAMETERS]}
    sign_ins = SignIns(services().redis)
    try:
        sign_in = sign_ins.find_by_state(answer.get("state", ""))
        if not sign_ins.submit(sign_in.id, answer):
            return show(400, "This answer has been used already, or comes too late.")
        services().operations.request(CredentialOperation(sign_in.pool, sign_in.id, ANSWER_OPERATION))
        return show_end(sign_ins.get(sign_in.id))
    except NotFound as error:
        return show(400, f"{error}.")
    except FarmError as error:
        return show(503, f"{error}.")


def show_end(sign_in: SignIn) -> Response:
    if sign_in.state == "done":
        return show(200, f"Signed in as {sign_in.account or 'the account'}. You may close this page.")
    return show(400, f"Not signed in: {sign_in.message or sign_in.state}.")


def show(status: int, text: str) -> Response:
    """A page without links: its address has had a code in it."""
    response = Response(render_template("sign_in.html", text=text), status)
    response.headers["referrer-policy"] = "no-referrer"
    return response
