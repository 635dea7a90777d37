"""Admin API: API keys."""

from collections.abc import Sequence
from dataclasses import asdict

from flask import Response

from shared import keys as redis_keys
from shared.api_keys.api_key import ApiKey
from shared.api_keys.limit_use import read_key_use, read_quota_shares
from shared.api_keys.store import ApiKeys
from shared.errors import ApiError, BadField, Conflict, NotFound
from shared.list_filters import matches_text, sort_by
from shared.observability.refusals import read_refusals
from shared.protocol.changed_limits import apply_limits
from web.admin.api import router
from web.admin.audit_log import record_change
from web.admin.etags import check_if_match, set_etag
from web.admin.openapi import to_api_error, to_response
from web.admin.pagination import paginate
from web.admin.schemas.api_keys import (
    CreatedKey,
    Key,
    KeyChange,
    KeyLimitUse,
    KeyPage,
    KeyQuery,
    KeyRotation,
    KeyUse,
    NewKey,
)
from web.admin.schemas.fields import Empty
from web.services import services

HOUR_SECONDS = 3600


def open_store() -> ApiKeys:
    return ApiKeys(services().redis)


def to_schema(key: ApiKey) -> Key:
    return to_schemas([key])[0]


def to_schemas(api_keys: Sequence[ApiKey]) -> list[Key]:
    times = services().redis.hmget(redis_keys.LAST_USED, [key.id for key in api_keys]) if api_keys else []
    return [
        Key(**key.model_dump(exclude={"last_used_at"}), last_used_at=float(last_used_at or 0))
        for key, last_used_at in zip(api_keys, times, strict=True)
    ]


def get_or_404(key_id: str) -> ApiKey:
    """Raises ApiError 404."""
    try:
        return open_store().get(key_id)
    except NotFound as error:
        raise ApiError(404, "not_found", str(error)) from None


@router.route("GET", "/keys", query=KeyQuery, response=KeyPage, errors=(404,))
def list_keys(query: KeyQuery) -> KeyPage:
    """List API keys, oldest first."""
    found: Sequence[ApiKey] = [key for key in open_store().list() if is_wanted(query, key)]
    if query.unused_since is not None or query.sort.endswith("last_used_at"):
        unused_since = float("inf") if query.unused_since is None else query.unused_since
        found = [key for key in to_schemas(found) if key.last_used_at < unused_since]
    if query.quota_above is not None:
        shares = read_quota_shares(services().redis, found)
        found = [key for key in found if shares.get(key.id, -1.0) > query.quota_above]
    found = sort_by(found, query.sort)
    data, next_cursor = paginate(found, [key.id for key in found], query.limit, query.cursor)
    return KeyPage(data=to_schemas(data), next=next_cursor, total=len(found))


def is_wanted(query: KeyQuery, key: ApiKey) -> bool:
    """Whether a filter matches, apart from that for the last use."""
    return query.state in ("", find_state(key)) and matches_text(query.text, key.id, key.name, key.hint)


def find_state(key: ApiKey) -> str:
    """Whether requests may use the key, and if not, why."""
    if key.revoked_at:
        return "revoked"
    if not key.enabled:
        return "disabled"
    return "expired" if key.is_expired else "enabled"


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


@router.route("GET", "/keys/<key_id>/use", response=KeyUse)
def get_key_use(key_id: str) -> KeyUse:
    """Get what an API key uses of its limits now, and how many of its requests were refused lately."""
    redis = services().redis
    use = read_key_use(redis, get_or_404(key_id))
    limits = [KeyLimitUse(**asdict(limit)) for limit in use.limits]
    return KeyUse(limits=limits, held=use.held, refused=read_refusals(redis, key_id))


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


@router.route("POST", "/keys/<key_id>/rotate", body=KeyRotation, response=CreatedKey, errors=(409,))
def rotate_key(key_id: str, body: KeyRotation) -> CreatedKey:
    """Give an API key a new secret, which only this response contains; the former one is accepted for a while.

    Limits, usage and the log stay with the key. With `grace_hours` 0 all former secrets end within a second.
    """
    get_or_404(key_id)
    try:
        secret, key = open_store().rotate(key_id, HOUR_SECONDS * body.grace_hours)
    except Conflict as error:
        raise ApiError(409, "conflict", str(error)) from None
    record_change("key.rotate", key_id, body.model_dump())
    return CreatedKey(**to_schema(key).model_dump(), key=secret)


@router.route("POST", "/keys/<key_id>/end-former", body=Empty, response=Key)
def end_former_secrets(key_id: str, body: Empty) -> Key:
    """End all former secrets of an API key, within a second."""
    get_or_404(key_id)
    key = open_store().end_superseded(key_id)
    record_change("key.end_former", key_id)
    return to_schema(key)


@router.route("POST", "/keys/<key_id>/revoke", body=Empty, response=Key, errors=(409,))
def revoke_key(key_id: str, body: Empty) -> Key:
    """Revoke an API key permanently; its record is kept."""
    get_or_404(key_id)
    try:
        revoked = open_store().revoke(key_id)
    except Conflict as error:
        raise ApiError(409, "conflict", str(error)) from None
    record_change("key.revoke", key_id)
    return to_schema(revoked)
