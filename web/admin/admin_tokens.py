"""Admin API: admin tokens."""

from shared.errors import ApiError, Conflict, NotFound
from web.admin.api import router
from web.admin.audit_log import record_change
from web.admin.schemas.access import AdminTokenList, CreatedAdminToken, NewAdminToken
from web.services import services


@router.route("GET", "/admin-tokens", response=AdminTokenList)
def list_admin_tokens() -> AdminTokenList:
    """List all admin tokens."""
    return AdminTokenList(data=services().admin_tokens.list())


@router.route("POST", "/admin-tokens", body=NewAdminToken, response=CreatedAdminToken, status=201)
def create_admin_token(body: NewAdminToken) -> CreatedAdminToken:
    """Create an admin token; only this response contains the secret."""
    secret, record = services().admin_tokens.create(body.name, body.role)
    record_change("token.create", record.id, body.model_dump())
    return CreatedAdminToken(**record.model_dump(), token=secret)


@router.route("DELETE", "/admin-tokens/<token_id>", status=204, errors=(409,))
def revoke_admin_token(token_id: str) -> None:
    """Revoke an admin token and end its sessions."""
    try:
        services().admin_tokens.revoke(token_id)
    except NotFound as error:
        raise ApiError(404, "not_found", str(error)) from None
    except Conflict as error:
        raise ApiError(409, "conflict", str(error)) from None
    record_change("token.revoke", token_id)
