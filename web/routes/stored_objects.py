"""Replies to requests for what OpenAI's API stores and the farm does not: responses, completions, conversations."""

from flask import Blueprint, Response

from shared.errors import ApiError

blueprint = Blueprint("stored_objects", __name__)
#: Paths below /v1 of stored objects, and of collections of which the farm has none.
STORED = (
    "responses/<path:id>",
    "chat/completions/<path:id>",
    "conversations",
    "conversations/<path:id>",
)


def refuse(**_: str) -> Response:
    """Raises ApiError 404."""
    raise ApiError(
        404,
        "not_stored",
        "The farm relays requests and stores no responses, completions or conversations: keep what you need of a "
        "reply, and send the whole conversation with each request.",
    )


for stored in STORED:
    for prefix in ("/v1/", "/"):
        blueprint.add_url_rule(prefix + stored, view_func=refuse, methods=["GET", "POST", "DELETE"])
