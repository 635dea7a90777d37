"""The form of an API key, and what it says as the admin API has it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from shared.api_keys.api_key import ApiKey, KeyFields
from shared.errors import ApiError
from web.admin.schemas.api_keys import KeyChange, NewKey

M = TypeVar("M", bound=NewKey)
#: Fields with one value to a line.
LISTS = ("pools", "models", "networks")
#: Fields that are whole numbers; an empty one is 0, which is no limit.
LIMITS = ("concurrency", "rpm", "tpm", "max_waiting", "quota_tokens", "quota_requests", "cache_ttl")
TEXTS = ("name", "note", "quota_reset", "quota_zone", "band")


def to_form(key: ApiKey | None) -> dict[str, str]:
    """The form's values for a key, or for a new one."""
    fields: KeyFields = key or KeyFields()
    form = {name: str(getattr(fields, name)) for name in (*LIMITS, *TEXTS)}
    form |= {name: "\n".join(getattr(fields, name)) for name in LISTS}
    form |= {"weight": f"{fields.weight:g}", "enabled": "1" if fields.enabled else ""}
    expires = datetime.fromtimestamp(fields.expires_at, UTC) if fields.expires_at else None
    return form | {"expires_at": expires.strftime("%Y-%m-%dT%H:%M") if expires else ""}


def read_new_key(form: Mapping[str, str]) -> NewKey:
    return read_fields(NewKey, form)


def read_change(form: Mapping[str, str]) -> KeyChange:
    return read_fields(KeyChange, form)


def read_fields(model: type[M], form: Mapping[str, str]) -> M:
    """Raises ApiError 422, which names the first field that is not valid."""
    values: dict[str, Any] = {name: form.get(name, "").strip() for name in TEXTS if name in form}
    values |= {name: form.get(name, "").strip() or "0" for name in LIMITS if name in form}
    values |= {name: tuple(form.get(name, "").split()) for name in LISTS if name in form}
    if form.get("weight"):
        values["weight"] = form["weight"]
    values["enabled"] = bool(form.get("enabled"))
    values["expires_at"] = read_time(form.get("expires_at", ""))
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        raise ApiError(422, "invalid_parameter", first["msg"].removeprefix("Value error, "), param=name) from None


def read_time(text: str) -> float:
    """`2026-11-28T12:00` in UTC as seconds since the epoch, 0 for ''. Raises ApiError 422."""
    if not text:
        return 0.0
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise ApiError(422, "invalid_parameter", "is no date and time", param="expires_at") from None
