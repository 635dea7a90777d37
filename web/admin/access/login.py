"""The console's login page, and logout."""

import re

from flask import Blueprint, Response, g, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from shared.api_keys.store import hash_secret
from shared.errors import ApiError
from web.admin.access import session_cookie
from web.admin.access.gate import check_token, find_session
from web.admin.access.login_records import find_address, record_login, record_logout
from web.services import services

HOME = "/admin/"
#: A path of the console with its query; nothing that a browser could take for another host.
NEXT_PAGE = re.compile(r"/admin/[\w./?&=%+,~:-]*", re.ASCII)
blueprint = Blueprint("admin", __name__, url_prefix="/admin", template_folder="../templates")


@blueprint.get("/login")
def login_page() -> str:
    return show_form()


def show_form(**problem: bool) -> str:
    return render_template("login.html", next=find_next_page(), **problem)


def find_next_page() -> str:
    """The page that was asked for before the login; the first one unless it is a path of the console."""
    path = request.args.get("next", "")
    return path if NEXT_PAGE.fullmatch(path) else HOME


@blueprint.post("/login")
def login() -> BaseResponse | tuple[str, int]:
    secret = request.form.get("token", "")
    try:
        token = check_token(secret)
    except ApiError as error:
        return Response(show_form(banned=True), error.status, error.headers)
    if token is None:
        return show_form(wrong=True), 401
    web_services = services()
    if previous := find_session():
        web_services.admin_sessions.end(previous.id)
    session_secret, session = web_services.admin_sessions.open(
        token.id, token.role, hash_secret(secret), find_address()
    )
    record_login(session)
    response = redirect(find_next_page())
    session_cookie.set_secret(response, session_secret)
    return response


@blueprint.post("/logout")
def logout() -> BaseResponse:
    if session := g.get("admin_session"):
        services().admin_sessions.end(session.id)
        record_logout(session)
    response = redirect(f"{HOME}login")
    session_cookie.delete_secret(response)
    return response
