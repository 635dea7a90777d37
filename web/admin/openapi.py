"""Routes that say what they take and give: checked by pydantic, and told of in an OpenAPI 3.1 document; no route in it.

The libraries that do this for Flask take a body that is no JSON for an empty one and parameters that nobody knows for
none; here both are the caller's mistake, and every answer is one that the document names.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar

from flask import Blueprint, Response, request
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema

from shared.errors import ApiError, BadField

V = TypeVar("V", bound=Callable[..., Any])
#: A path parameter in a Flask rule.
PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")
REFERENCE = "#/components/schemas/{model}"
JSON = "application/json"
#: Status -> what it says of a request.
STATUS_DESCRIPTIONS = {
    200: "Done.",
    201: "Made.",
    204: "Done; there is nothing to say.",
    400: "The request is not as described here.",
    401: "The admin token is missing or wrong.",
    403: "The token's role may not do that.",
    404: "There is no such thing.",
    409: "It is not in a state for that.",
    412: "It has changed since it was read (RFC 9110, If-Match).",
    413: "The body is too large.",
    422: "A value is well formed and can't be.",
    503: "Redis, or the worker process that is needed, does not answer.",
}
#: Answers that every operation may give.
COMMON_ERRORS = (400, 401, 403, 503)


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """An error in OpenAI's shape."""

    error: ErrorBody


@dataclass(frozen=True)
class Operation:
    """One route and what it takes and gives."""

    method: str
    rule: str
    view: Callable[..., Any]
    query: type[BaseModel] | None
    body: type[BaseModel] | None
    response: type[BaseModel] | None
    status: int
    errors: tuple[int, ...]
    #: Other media types that the answer may have.
    media: tuple[str, ...]

    @property
    def path(self) -> str:
        """As OpenAPI writes it."""
        return PARAMETER.sub(r"{\1}", self.rule)


@dataclass
class OpenApiRouter:
    """The operations of a blueprint."""

    blueprint: Blueprint
    operations: list[Operation] = field(default_factory=list)

    def route(
        self,
        method: str,
        rule: str,
        *,
        query: type[BaseModel] | None = None,
        body: type[BaseModel] | None = None,
        response: type[BaseModel] | None = None,
        status: int = 200,
        errors: tuple[int, ...] = (),
        media: tuple[str, ...] = (),
    ) -> Callable[[V], V]:
        """Makes a view a route; it is given `query` and `body` as models, and its first lines describe it."""

        def register(view: V) -> V:
            operation = Operation(method, rule, view, query, body, response, status, errors, media)
            self.operations.append(operation)
            self.blueprint.add_url_rule(rule, view.__name__, build_view(operation), methods=[method])
            return view

        return register

    def build_document(self, title: str, version: str, prefix: str) -> dict[str, Any]:
        """The OpenAPI 3.1 document."""
        paths: dict[str, dict[str, Any]] = {}
        models: dict[type[BaseModel], None] = {ErrorResponse: None}
        for one in self.operations:
            models |= dict.fromkeys(model for model in (one.query, one.body, one.response) if model)
            paths.setdefault(prefix + one.path, {})[one.method.lower()] = describe_operation(one)
        # A model that is asked for must not want what an answer always has.
        _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=REFERENCE)
        return {
            "openapi": "3.1.0",
            "info": {"title": title, "version": version},
            "paths": paths,
            "components": {
                "schemas": schemas["$defs"],
                "securitySchemes": {"admin_token": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{"admin_token": []}],
        }


def build_view(operation: Operation) -> Callable[..., Response]:
    """The view that Flask calls."""

    @wraps(operation.view)
    def serve(**path: Any) -> Response:
        given = dict(path)
        if operation.query:
            given["query"] = parse_model(operation.query, read_query(operation.query))
        elif request.args:
            raise ApiError(400, "unknown_parameter", "this takes no parameters", param=next(iter(request.args)))
        if operation.body:
            given["body"] = parse_model(operation.body, request.get_data(), strict=True)
        return to_response(operation.view(**given), operation.status)

    return serve


def to_response(found: Any, status: int) -> Response:
    """A model, or nothing, as an answer; one that is ready passes."""
    if isinstance(found, Response):
        return found
    if found is None:
        return Response(status=status)
    return Response(found.model_dump_json(), status, content_type=JSON)


def read_query(model: type[BaseModel]) -> dict[str, Any]:
    """The parameters; one that is given twice is a mistake."""
    for name, values in request.args.lists():
        if len(values) > 1:
            raise ApiError(400, "invalid_parameter", f"{name} is given more than once", param=name)
    return dict(request.args.items())


def parse_model(model: type[BaseModel], values: Any, *, strict: bool = False) -> BaseModel:
    """A model out of parameters or of JSON. Raises ApiError 400 that names the field, 422 for a value that can't be."""
    try:
        return model.model_validate_json(values, strict=True) if strict else model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "json_invalid":
            raise ApiError(400, "invalid_json", "the body of the request is not valid JSON") from None
        status = 422 if first["type"] == "value_error" else 400
        reason = first["msg"].removeprefix("Value error, ")
        message = f"{name}: {reason}" if name else reason
        raise ApiError(status, "invalid_parameter", message, param=name or None) from None
    except UnicodeDecodeError:
        raise ApiError(400, "invalid_json", "the body of the request is not valid JSON") from None


def to_api_error(error: BadField) -> ApiError:
    """A field that a store has found to be wrong."""
    return ApiError(422, "invalid_parameter", str(error), param=error.name or None)


# The document


def describe_operation(one: Operation) -> dict[str, Any]:
    """One operation of the document."""
    summary, _, rest = (one.view.__doc__ or "").partition("\n")
    path = [
        {"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in PARAMETER.findall(one.rule)
    ]
    found: dict[str, Any] = {
        "operationId": one.view.__name__,
        "summary": summary.strip(),
        "description": " ".join(rest.split()),
        "tags": [one.rule.split("/")[1]],
        "parameters": [*path, *(describe_parameters(one.query) if one.query else ())],
        "responses": describe_responses(one),
    }
    if one.body:
        found["requestBody"] = {"required": True, "content": {JSON: {"schema": schema_reference(one.body)}}}
    return found


def describe_parameters(model: type[BaseModel]) -> Iterable[dict[str, Any]]:
    """Each field of a query as a parameter."""
    schema = model.model_json_schema(ref_template=REFERENCE)
    for name, one in schema.get("properties", {}).items():
        described_as = {"description": one["description"]} if "description" in one else {}
        required = name in schema.get("required", ())
        yield {"name": name, "in": "query", "required": required, "schema": one, **described_as}


def describe_responses(one: Operation) -> dict[str, Any]:
    """Every answer of an operation."""
    good: dict[str, Any] = {"description": STATUS_DESCRIPTIONS[one.status]}
    if one.response:
        good["content"] = {JSON: {"schema": schema_reference(one.response)}}
    for media in one.media:
        good.setdefault("content", {})[media] = {"schema": {"type": "string"}}
    statuses = {
        *COMMON_ERRORS,
        *one.errors,
        *({404} if PARAMETER.search(one.rule) else ()),
        *({413, 422} if one.body else ()),
    }
    error = {"content": {JSON: {"schema": schema_reference(ErrorResponse)}}}
    bad = {str(status): {"description": STATUS_DESCRIPTIONS[status], **error} for status in sorted(statuses)}
    return {str(one.status): good, **bad}


def schema_reference(model: type[BaseModel]) -> dict[str, str]:
    """Where a model is described."""
    return {"$ref": REFERENCE.format(model=model.__name__)}


def document_response(document: dict[str, Any]) -> Response:
    """The document as an answer."""
    return Response(json.dumps(document), content_type=JSON)
