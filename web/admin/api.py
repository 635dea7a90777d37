"""The admin API: JSON over credentials, keys, pools, usage, the log and what runs; /openapi.json tells of it."""

from flask import Blueprint, Response

from web.admin.openapi import Contract, as_json
from web.version import VERSION

PREFIX = "/admin/api/v1"
blueprint = Blueprint("admin_api", __name__, url_prefix=PREFIX)
contract = Contract(blueprint)


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """The OpenAPI 3.1 document of this API."""
    return as_json(contract.document("Token farm, admin API", VERSION, PREFIX))
