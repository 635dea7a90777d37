"""Admin API: sign-ins. A worker process carries them out, so that no token passes through the front."""

from flask import request

from shared.errors import ApiError, Conflict, NotFound
from shared.protocol.credential_operations import CredentialOperation, NoWorkerProcess
from shared.sign_in.sign_in import BEGIN_OPERATION, CALLBACK_PATH, SignIn
from shared.sign_in.sign_ins import SignIns
from web.admin.access.session_cookie import is_behind_tls
from web.admin.api import router
from web.admin.audit_log import record_change
from web.admin.sign_in.schemas import NewSignIn, SignInList, SignInResource
from web.services import services


def open_store() -> SignIns:
    return SignIns(services().redis)


def to_schema(sign_in: SignIn) -> SignInResource:
    return SignInResource(**sign_in.to_dict())


def get_or_404(sign_in_id: str) -> SignIn:
    """Raises ApiError 404."""
    try:
        return open_store().get(sign_in_id)
    except NotFound as error:
        raise ApiError(404, "not_found", str(error)) from None


def find_redirect_uri() -> str:
    """The farm's own address of the callback: FARM_DOMAIN, else the host that this request has asked for."""
    web_services = services()
    settings = web_services.settings
    if settings.domain:
        port = settings.https_endpoint_port if settings.has_https else 443
        return f"https://{settings.domain[0]}{'' if port == 443 else f':{port}'}{CALLBACK_PATH}"
    host = web_services.trusted_proxies.find_hosts(request)[-1]
    return f"{'https' if is_behind_tls() else 'http'}://{host}{CALLBACK_PATH}"


@router.route("GET", "/sign-ins", response=SignInList)
def list_sign_ins() -> SignInList:
    """List the sign-ins of the last hour, newest first."""
    return SignInList(data=[to_schema(sign_in) for sign_in in open_store().list_recent()])


@router.route("POST", "/sign-ins", body=NewSignIn, response=SignInResource, status=201, errors=(404, 409))
def begin_sign_in(body: NewSignIn) -> SignInResource:
    """Begin a sign-in; its account becomes a credential when the owner has signed in at `url`.

    The flow `browser` needs the redirect URI `https://<farm>/admin/sign-in/callback` at the upstream's client.
    """
    if body.pool not in [pool.name for pool in services().pool_selector]:
        raise ApiError(404, "not_found", f"no pool {body.pool!r}")
    redirect_uri = find_redirect_uri() if body.flow == "browser" else ""
    try:
        sign_in = open_store().create(body.pool, body.flow, redirect_uri, body.label)
    except Conflict as error:
        raise ApiError(409, "conflict", str(error)) from None
    try:
        result = services().operations.request(CredentialOperation(body.pool, sign_in.id, BEGIN_OPERATION))
    except NoWorkerProcess as error:
        open_store().fail(sign_in.id, "no_worker", str(error))
        raise ApiError(503, "no_worker", str(error), "server_error") from None
    if not result["ok"]:
        raise ApiError(409, "sign_in_failed", result["error"])
    record_change("sign_in.begin", sign_in.id, body.model_dump())
    return to_schema(open_store().get(sign_in.id))


@router.route("GET", "/sign-ins/<sign_in_id>", response=SignInResource)
def get_sign_in(sign_in_id: str) -> SignInResource:
    """Get a sign-in: `pending` until its owner has signed in, then `done`, `failed` or `expired`."""
    return to_schema(get_or_404(sign_in_id))


@router.route("DELETE", "/sign-ins/<sign_in_id>", status=204)
def cancel_sign_in(sign_in_id: str) -> None:
    """Cancel a sign-in; one that is over stays as it is."""
    get_or_404(sign_in_id)
    if open_store().fail(sign_in_id, "cancelled", "the sign-in was cancelled"):
        record_change("sign_in.cancel", sign_in_id)
