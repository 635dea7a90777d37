"""Admin API: API keys."""

from flask import Response

from shared import keys as redis_keys
from shared.api_keys.api_key import ApiKey
from shared.api_keys.store import ApiKeys
from shared.errors import ApiError, BadField, Conflict, NotFound
from shared.protocol.changed_limits import apply_limits
from web.admin.api import router
from web.admin.audit_log import record_change
from web.admin.etags import check_if_match, set_etag
from web.admin.openapi import to_api_error, to_response
from web.admin.pagination import paginate
from web.admin.schemas import CreatedKey, Empty, Key, KeyChange, KeyPage, NewKey, Page
from web.services import services


def open_store() -> ApiKeys:
    return ApiKeys(services().redis)


def to_schema(key: ApiKey) -> Key:
    return to_schemas([key])[0]


def to_schemas(api_keys: list[ApiKey]) -> list[Key]:
    times = services().redis.hmget(redis_keys.LAST_USED, [key.id for key in api_keys]) if api_keys else []
    return [
        Key(**key.model_dump(), last_used_at=float(last_used_at or 0))
        for key, last_used_at in zip(api_keys, times, strict=True)
    ]


def get_or_404(key_id: str) -> ApiKey:
    """Raises ApiError 404."""
    try:
        return open_store().get(key_id)
    except NotFound as error:
        raise ApiError(404, "not_found", str(error)) from None


@router.route("GET", "/keys", query=Page, response=KeyPage, errors=(404,))
def list_keys(query: Page) -> KeyPage:
    """List all API keys, oldest first."""
    all_keys = open_store().list()
    data, next_cursor = paginate(all_keys, [key.id for key in all_keys], query.limit, query.cursor)
    return KeyPage(data=to_schemas(data), next=next_cursor)


@router.route("POST", "/keys", body=NewKey, response=CreatedKey, status=201)
def create_key(body: NewKey) -> CreatedKey:
    """Create an API key; only this response contains the secret."""
    try:
        secret, key = open_store().create(**body.model_dump())
    except BadField as error:
        raise to_api_error(error) from None
    record_change("key.create", key.id, body.model_dump(exclude_unset=True))
    return CreatedKey(**to_schema(key).model_dump(), key=secret)


@router.route("GET", "/keys/<key_id>", response=Key)
def get_key(key_id: str) -> Response:
    """Get an API key; send its ETag as If-Match to detect concurrent changes."""
    key = get_or_404(key_id)
    return set_etag(to_response(to_schema(key), 200), key.version)


@router.route("PATCH", "/keys/<key_id>", body=KeyChange, response=Key, errors=(409, 412))
def update_key(key_id: str, body: KeyChange) -> Response:
    """Change an API key; takes effect everywhere within two seconds."""
    before = get_or_404(key_id)
    check_if_match(before.version)
    changes = body.model_dump(exclude_unset=True)
    try:
        key = open_store().update(key_id, changes, before.version)
    except BadField as error:
        raise to_api_error(error) from None
    except Conflict as error:
        raise ApiError(409, "conflict", str(error)) from None
    apply_limits(services().redis, key)
    record_change("key.update", key_id, changes)
    return set_etag(to_response(to_schema(key), 200), key.version)


@router.route("POST", "/keys/<key_id>/revoke", body=Empty, response=Key)
def revoke_key(key_id: str, body: Empty) -> Key:
    """Revoke an API key permanently; its record is kept."""
    get_or_404(key_id)
    revoked = open_store().revoke(key_id)
    record_change("key.revoke", key_id)
    return to_schema(revoked)
