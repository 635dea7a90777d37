"""API keys by the admin API."""

from flask import Response

from shared import keys as names
from shared.api_keys.api_key import ApiKey
from shared.api_keys.store import ApiKeys
from shared.errors import ApiError, BadField, Conflict, NotFound
from web.admin.api import router
from web.admin.audit_log import record_change
from web.admin.etags import check_if_match, set_etag
from web.admin.openapi import to_api_error, to_response
from web.admin.pagination import paginate
from web.admin.schemas import CreatedKey, Empty, Key, KeyChange, KeyPage, NewKey, Page
from web.services import services


def open_store() -> ApiKeys:
    """The keys of the farm."""
    return ApiKeys(services().redis)


def to_schema(key: ApiKey) -> Key:
    """A key as the API gives it."""
    used = services().redis.hget(names.LAST_USED, key.id)
    return Key(**key.model_dump(), last_used_at=float(used or 0))


def get_or_404(key_id: str) -> ApiKey:
    """A key. Raises ApiError 404."""
    try:
        return open_store().get(key_id)
    except NotFound as error:
        raise ApiError(404, "not_found", str(error)) from None


@router.route("GET", "/keys", query=Page, response=KeyPage, errors=(404,))
def list_keys(query: Page) -> KeyPage:
    """Every API key, oldest first."""
    all_keys = open_store().list()
    data, following = paginate(all_keys, [key.id for key in all_keys], query.limit, query.cursor)
    return KeyPage(data=[to_schema(key) for key in data], next=following)


@router.route("POST", "/keys", body=NewKey, response=CreatedKey, status=201)
def create_key(body: NewKey) -> CreatedKey:
    """Make an API key; the secret is told this once."""
    try:
        secret, key = open_store().create(**body.model_dump())
    except BadField as error:
        raise to_api_error(error) from None
    record_change("key.create", key.id, body.model_dump(exclude_unset=True))
    return CreatedKey(**to_schema(key).model_dump(), key=secret)


@router.route("GET", "/keys/<key_id>", response=Key)
def get_key(key_id: str) -> Response:
    """One API key; its ETag can be sent back as If-Match."""
    key = get_or_404(key_id)
    return set_etag(to_response(to_schema(key), 200), key.version)


@router.route("PATCH", "/keys/<key_id>", body=KeyChange, response=Key, errors=(409, 412))
def update_key(key_id: str, body: KeyChange) -> Response:
    """Change an API key; in force everywhere within two seconds."""
    before = get_or_404(key_id)
    check_if_match(before.version)
    changes = body.model_dump(exclude_unset=True)
    try:
        key = open_store().update(key_id, changes, before.version)
    except BadField as error:
        raise to_api_error(error) from None
    except Conflict as error:
        raise ApiError(409, "conflict", str(error)) from None
    record_change("key.update", key_id, changes)
    return set_etag(to_response(to_schema(key), 200), key.version)


@router.route("POST", "/keys/<key_id>/revoke", body=Empty, response=Key)
def revoke_key(key_id: str, body: Empty) -> Key:
    """Revoke an API key for good; its record stays."""
    get_or_404(key_id)
    revoked = open_store().revoke(key_id)
    record_change("key.revoke", key_id)
    return to_schema(revoked)
