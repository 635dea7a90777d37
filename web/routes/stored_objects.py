"""Replies to requests for what OpenAI's API stores and the farm does not: responses, completions, conversations."""

from flask import Blueprint, Response

from shared.errors import ApiError

blueprint = Blueprint("stored_objects", __name__)
#: Paths below /v1 of stored objects, and of collections of which the farm has none -> methods.
STORED = {
    "responses/<path:id>": ("GET", "DELETE"),
    "responses/<id>/cancel": ("POST",),
    "chat/completions/<path:id>": ("GET", "POST", "DELETE"),
    "conversations": ("GET", "POST"),
    "conversations/<path:id>": ("GET", "POST", "DELETE"),
}


def refuse(**_: str) -> Response:
    """Raises ApiError 404."""
    raise ApiError(
        404,
        "not_stored",
        "The farm relays requests and stores no responses, completions or conversations: keep what you need of a "
        "reply, and send the whole conversation with each request.",
    )


for stored, methods in STORED.items():
    for prefix in ("/v1/", "/"):
        blueprint.add_url_rule(prefix + stored, view_func=refuse, methods=methods)
