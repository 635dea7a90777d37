"""Admin tokens in the admin API."""

from shared.errors import ApiError, Conflict, NotFound
from web.admin.api import contract
from web.admin.audit_log import note
from web.admin.schemas import (
    AdminTokenList,
    MadeAdminToken,
    NewAdminToken,
)
from web.services import parts


@contract.route("GET", "/admin-tokens", answer=AdminTokenList)
def list_admin_tokens() -> AdminTokenList:
    """Every admin token."""
    return AdminTokenList(data=parts().admin_tokens.list())


@contract.route("POST", "/admin-tokens", body=NewAdminToken, answer=MadeAdminToken, status=201)
def create_admin_token(body: NewAdminToken) -> MadeAdminToken:
    """Make an admin token; the secret is told this once."""
    secret, made = parts().admin_tokens.create(body.name, body.role)
    note("token.create", made.id, body.model_dump())
    return MadeAdminToken(**made.model_dump(), token=secret)


@contract.route("DELETE", "/admin-tokens/<token_id>", status=204, errors=(409,))
def revoke_admin_token(token_id: str) -> None:
    """Revoke an admin token and the sessions that it has opened."""
    try:
        parts().admin_tokens.revoke(token_id)
    except NotFound as error:
        raise ApiError(404, "not_found", str(error)) from None
    except Conflict as error:
        raise ApiError(409, "conflict", str(error)) from None
    note("token.revoke", token_id)
