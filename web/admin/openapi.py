"""Routes validated by pydantic and described in an OpenAPI 3.1 document.

Flask libraries for this treat a body that is not JSON as empty and ignore unknown parameters. Here both are errors, and
the document lists every response that an operation can give.
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
#: Path parameter in a Flask rule.
PATH_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")
SCHEMA_REFERENCE = "#/components/schemas/{model}"
JSON_TYPE, EVENT_STREAM_TYPE = "application/json", "text/event-stream"
#: One event of a stream (OpenAPI 3.2, "Sequential Media Types").
EVENT_SCHEMA = {"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}}
#: HTTP status -> description in the document.
STATUS_DESCRIPTIONS = {
    200: "Success.",
    201: "Created.",
    204: "Success, without content.",
    400: "The request does not match this description.",
    401: "The admin token is missing or wrong.",
    403: "The role of the admin token does not permit this.",
    404: "The object does not exist.",
    409: "The state of the object does not permit this.",
    412: "The object has changed since it was read (RFC 9110, If-Match).",
    413: "The body is too large.",
    422: "A value is well-formed but invalid.",
    429: "The queue is full, or a limit is reached.",
    431: "A header is too long.",
    502: "The upstream can't be reached, or refuses the farm's credentials.",
    503: "Redis or a worker process does not respond.",
}
#: Error statuses that every operation can return.
COMMON_ERRORS = (400, 401, 403, 503)


class ErrorBody(BaseModel):
    """Description of an error."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """An error in OpenAI's format."""

    error: ErrorBody


@dataclass(frozen=True)
class Operation:
    """One route with its request and response models."""

    method: str
    rule: str
    view: Callable[..., Any]
    query: type[BaseModel] | None
    body: type[BaseModel] | None
    response: type[BaseModel] | None
    status: int
    errors: tuple[int, ...]
    #: Further media types of the response.
    media: tuple[str, ...]

    @property
    def path(self) -> str:
        """The rule in OpenAPI's notation."""
        return PATH_PARAMETER.sub(r"{\1}", self.rule)


@dataclass
class OpenApiRouter:
    """Registers the operations of a blueprint and documents them."""

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
        """Registers a view, which gets `query` and `body` as models.

        Its docstring is the OpenAPI text: the first line is the summary, the rest the description.
        """

        def register(view: V) -> V:
            operation = Operation(method, rule, view, query, body, response, status, errors, media)
            if rule not in {other.rule for other in self.operations}:
                self._register_options(rule, view.__name__)
            self.operations.append(operation)
            endpoint_view = build_view(operation)
            self.blueprint.add_url_rule(
                rule, view.__name__, endpoint_view, methods=[method], provide_automatic_options=False
            )
            return view

        return register

    def _register_options(self, rule: str, name: str) -> None:
        """Registers OPTIONS; Flask's own would add the methods of other rules that match, as `/<id>` does `/enable`."""

        def list_methods(**path: Any) -> Response:
            methods = {operation.method for operation in self.operations if operation.rule == rule}
            implied = {"OPTIONS", *({"HEAD"} if "GET" in methods else ())}
            return Response(headers={"allow": ", ".join(sorted(methods | implied))})

        self.blueprint.add_url_rule(rule, f"{name}_options", list_methods, methods=["OPTIONS"])

    def build_document(self, title: str, version: str, prefix: str) -> dict[str, Any]:
        paths: dict[str, dict[str, Any]] = {}
        models: dict[type[BaseModel], None] = {ErrorResponse: None}
        for operation in self.operations:
            models |= dict.fromkeys(model for model in (operation.query, operation.body, operation.response) if model)
            paths.setdefault(prefix + operation.path, {})[operation.method.lower()] = describe_operation(operation)
        # Mode "serialization" would make fields with a default required, and some models are used in requests too.
        _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=SCHEMA_REFERENCE)
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

    @wraps(operation.view)
    def serve(**path: Any) -> Response:
        arguments = dict(path)
        if operation.query:
            arguments["query"] = parse_model(operation.query, read_query())
        elif request.args:
            raise ApiError(
                400, "unknown_parameter", "this operation takes no parameters", param=next(iter(request.args))
            )
        if operation.body:
            arguments["body"] = parse_model(operation.body, request.get_data(), strict=True)
        return to_response(operation.view(**arguments), operation.status)

    return serve


def to_response(result: Any, status: int) -> Response:
    """Encodes a model as JSON; None gives an empty response, and a Response is returned unchanged."""
    if isinstance(result, Response):
        return result
    if result is None:
        return Response(status=status)
    return Response(result.model_dump_json(), status, content_type=JSON_TYPE)


def read_query() -> dict[str, Any]:
    """Reads the query parameters. Raises ApiError 400 for a repeated one."""
    for name, values in request.args.lists():
        if len(values) > 1:
            raise ApiError(400, "invalid_parameter", f"{name} is given more than once", param=name)
    return dict(request.args.items())


def parse_model(model: type[BaseModel], values: Any, *, strict: bool = False) -> BaseModel:
    """Validates parameters, or with `strict` a JSON body.

    Raises ApiError, which names the field: 422 for a well-formed but invalid value, otherwise 400.
    """
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
    return ApiError(422, "invalid_parameter", str(error), param=error.name or None)


# The document


def describe_operation(operation: Operation) -> dict[str, Any]:
    summary, _, rest = (operation.view.__doc__ or "").partition("\n")
    path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in PATH_PARAMETER.findall(operation.rule)
    ]
    described: dict[str, Any] = {
        "operationId": operation.view.__name__,
        "summary": summary.strip(),
        "description": " ".join(rest.split()),
        "tags": [operation.rule.split("/")[1]],
        "parameters": [*path, *(describe_parameters(operation.query) if operation.query else ())],
        "responses": describe_responses(operation),
    }
    if operation.body:
        described["requestBody"] = {
            "required": True,
            "content": {JSON_TYPE: {"schema": schema_reference(operation.body)}},
        }
    return described


def describe_parameters(model: type[BaseModel]) -> Iterable[dict[str, Any]]:
    schema = model.model_json_schema(ref_template=SCHEMA_REFERENCE)
    for name, field_schema in schema.get("properties", {}).items():
        described_as = {"description": field_schema["description"]} if "description" in field_schema else {}
        required = name in schema.get("required", ())
        yield {"name": name, "in": "query", "required": required, "schema": field_schema, **described_as}


def describe_responses(operation: Operation) -> dict[str, Any]:
    success: dict[str, Any] = {"description": STATUS_DESCRIPTIONS[operation.status]}
    if operation.response:
        success["content"] = {JSON_TYPE: {"schema": schema_reference(operation.response)}}
    for media in operation.media:
        schema = EVENT_SCHEMA if media == EVENT_STREAM_TYPE else {"type": "string"}
        success.setdefault("content", {})[media] = {"schema": schema}
    statuses = {
        *COMMON_ERRORS,
        *operation.errors,
        *({404} if PATH_PARAMETER.search(operation.rule) else ()),
        *({413, 422} if operation.body else ()),
    }
    error = {"content": {JSON_TYPE: {"schema": schema_reference(ErrorResponse)}}}
    failures = {str(status): {"description": STATUS_DESCRIPTIONS[status], **error} for status in sorted(statuses)}
    return {str(operation.status): success, **failures}


def schema_reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": SCHEMA_REFERENCE.format(model=model.__name__)}


def document_response(document: dict[str, Any]) -> Response:
    return Response(json.dumps(document), content_type=JSON_TYPE)
