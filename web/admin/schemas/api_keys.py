"""Models of API keys, their limits and their use."""

import zoneinfo
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from shared.api_keys.api_key import ApiKey, KeyFields
from web.admin.schemas.fields import Page, SearchText, StrictModel, Timestamp, ordered

#: Fields by which lists can be sorted.
KEY_ORDERS = ("name", "created_at", "last_used_at", "expires_at")

Zone = Annotated[str, Field(json_schema_extra={"enum": sorted(zoneinfo.available_timezones())})]


class NewKey(KeyFields):
    """An API key to create."""

    quota_zone: Zone = KeyFields.model_fields["quota_zone"].default


class KeyChange(NewKey):
    """Changes to an API key; omitted fields keep their values."""


class KeyRotation(StrictModel):
    """A new secret for an API key."""

    grace_hours: Annotated[
        float, Field(ge=0, le=24 * 90, allow_inf_nan=False, description="for how long the former secret is accepted")
    ] = 24


class Key(ApiKey):
    """An API key, without its secret."""

    rotated_at: Annotated[
        float, Field(description="when it got its present secret in place of another; 0 for never")
    ] = 0
    superseded_until: Annotated[float, Field(description="until when a former secret is accepted at most")] = 0
    superseded_ended_at: Annotated[float, Field(description="secrets replaced before then are not accepted")] = 0

    last_used_at: Annotated[float, Field(description="0 for never; up to a second late")] = 0


class KeyLimitUse(BaseModel):
    """One limit of an API key, as it is used now."""

    name: Annotated[str, Field(description="`concurrency`, `rpm`, `tpm`, `quota_tokens` or `quota_requests`")]
    used: int
    limit: int
    reserved: Annotated[int, Field(description="tokens reserved for unfinished requests, beside those used")]
    resets_at: Annotated[float, Field(description="when the quota begins anew; 0 for never, and for other limits")]


class KeyUse(BaseModel):
    """What an API key uses of its limits."""

    limits: Annotated[list[KeyLimitUse], Field(description="those that the key has")]
    held: Annotated[int, Field(description="requests that wait for a limit, of `max_waiting`")]
    refused: Annotated[dict[str, int], Field(description="refused requests of about the last hour, by error code")]


class CreatedKey(Key):
    """A new API key with its secret, which is not shown again."""

    key: str


class KeyQuery(Page):
    """Filter and page of the API keys."""

    state: Annotated[
        Literal["", "enabled", "disabled", "expired", "revoked"], Field(description="only keys in this state")
    ] = ""
    unused_since: Annotated[Timestamp | None, Field(description="only keys that were not used since then")] = None
    quota_above: Annotated[
        float | None,
        Field(
            ge=0, le=100, allow_inf_nan=False, description="only keys that have used more than this share of a quota"
        ),
    ] = None
    text: SearchText = ""
    sort: Annotated[
        Literal["", *ordered(*KEY_ORDERS)],  # type: ignore[valid-type]
        Field(description="order of the list, `-` turns it round; oldest first without"),
    ] = ""


class KeyPage(BaseModel):
    """A page of API keys; `next` is the cursor of the next page, null on the last."""

    data: list[Key]
    next: str | None
    total: Annotated[int, Field(description="number of all matching keys")]
