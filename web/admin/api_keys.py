"""API keys by the admin API."""

from flask import Response

from shared import keys as names
from shared.api_keys.api_key import ApiKey
from shared.api_keys.store import ApiKeys
from shared.errors import ApiError, BadField, Conflict, NotFound
from web.admin.api import contract
from web.admin.audit_log import note
from web.admin.etags import check_version, tagged
from web.admin.openapi import answered, bad_field
from web.admin.pagination import page
from web.admin.schemas import Empty, Key, KeyChange, KeyPage, MadeKey, NewKey, Page
from web.services import parts


def store() -> ApiKeys:
    """The keys of the farm."""
    return ApiKeys(parts().redis)


def shown(key: ApiKey) -> Key:
    """A key as the API gives it."""
    used = parts().redis.hget(names.LAST_USED, key.id)
    return Key(**key.model_dump(), last_used_at=float(used or 0))


def found(key_id: str) -> ApiKey:
    """A key. Raises ApiError 404."""
    try:
        return store().get(key_id)
    except NotFound as error:
        raise ApiError(404, "not_found", str(error)) from None


@contract.route("GET", "/keys", query=Page, answer=KeyPage, errors=(404,))
def list_keys(query: Page) -> KeyPage:
    """Every API key, oldest first."""
    all_keys = store().list()
    data, following = page(all_keys, [key.id for key in all_keys], query.limit, query.cursor)
    return KeyPage(data=[shown(key) for key in data], next=following)


@contract.route("POST", "/keys", body=NewKey, answer=MadeKey, status=201)
def create_key(body: NewKey) -> MadeKey:
    """Make an API key; the secret is told this once."""
    try:
        secret, key = store().create(**body.model_dump())
    except BadField as error:
        raise bad_field(error) from None
    note("key.create", key.id, body.model_dump(exclude_unset=True))
    return MadeKey(**shown(key).model_dump(), key=secret)


@contract.route("GET", "/keys/<key_id>", answer=Key)
def get_key(key_id: str) -> Response:
    """One API key; its ETag can be sent back as If-Match."""
    key = found(key_id)
    return tagged(answered(shown(key), 200), key.version)


@contract.route("PATCH", "/keys/<key_id>", body=KeyChange, answer=Key, errors=(409, 412))
def update_key(key_id: str, body: KeyChange) -> Response:
    """Change an API key; in force everywhere within two seconds."""
    before = found(key_id)
    check_version(before.version)
    changes = body.model_dump(exclude_unset=True)
    try:
        key = store().update(key_id, changes, before.version)
    except BadField as error:
        raise bad_field(error) from None
    except Conflict as error:
        raise ApiError(409, "conflict", str(error)) from None
    note("key.update", key_id, changes)
    return tagged(answered(shown(key), 200), key.version)


@contract.route("POST", "/keys/<key_id>/revoke", body=Empty, answer=Key)
def revoke_key(key_id: str, body: Empty) -> Key:
    """Revoke an API key for good; its record stays."""
    found(key_id)
    revoked = store().revoke(key_id)
    note("key.revoke", key_id)
    return shown(revoked)
