"""Blueprint and router of the admin API; /openapi.json describes it."""

from flask import Blueprint, Response

from web.admin.openapi import OpenApiRouter, document_response
from web.version import VERSION

PREFIX = "/admin/api/v1"
blueprint = Blueprint("admin_api", __name__, url_prefix=PREFIX)
router = OpenApiRouter(blueprint)


@blueprint.get("/openapi.json")
def openapi() -> Response:
    return document_response(router.build_document("Token farm, admin API", VERSION, PREFIX))
