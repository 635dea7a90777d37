"""The API key record: its fields, their bounds, and what they permit."""

import ipaddress
import zoneinfo
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from shared import clock
from shared.errors import BadField
from shared.network.ip_addresses import parse_address

#: Upper bound of all limits; no real traffic reaches it.
MAX_LIMIT = 10**15
#: Id of the key with which the console's playground asks (console_key.py).
CONSOLE_KEY_ID = "console"


def coerce_integer(value: Any) -> Any:
    """Accepts 1.0 as 1: JSON does not distinguish them (RFC 8259 section 6)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def normalize_network(value: str) -> str:
    """Parses a network in CIDR notation or a single address (RFC 4632, RFC 4291). Raises ValueError."""
    return str(ipaddress.ip_network(value.strip(), strict=False))


def validate_zone(value: str) -> str:
    """Accepts names from the IANA time zone database. Raises ValueError."""
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is not a time zone such as Europe/Berlin") from None
    return value


Patterns = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=1000)]
Network = Annotated[str, Field(max_length=64), AfterValidator(normalize_network)]
Limit = Annotated[int, Field(ge=0, le=MAX_LIMIT), BeforeValidator(coerce_integer)]


class KeyFields(BaseModel):
    """The fields an operator may set.

    A limit of 0 means unlimited, except for `max_waiting`; an empty list allows everything.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(max_length=200, description="name for recognition")] = ""
    note: Annotated[str, Field(max_length=2000, description="the operator's note, e.g. who uses the key")] = ""
    enabled: Annotated[bool, Field(description="whether requests may use the key")] = True
    expires_at: Annotated[
        float,
        Field(ge=0, le=MAX_LIMIT, allow_inf_nan=False, description="expiry in seconds since the epoch, 0 for never"),
    ] = 0
    pools: Annotated[Patterns, Field(description="pools the key may use; * and ? are wildcards")] = ()
    models: Annotated[Patterns, Field(description="models the key may use; * and ? are wildcards")] = ()
    networks: Annotated[
        tuple[Network, ...], Field(max_length=1000, description="networks (CIDR) that may use the key")
    ] = ()
    concurrency: Annotated[Limit, Field(description="maximum requests running at once; more wait")] = 0
    rpm: Annotated[Limit, Field(description="maximum requests started in any minute; more wait")] = 0
    tpm: Annotated[Limit, Field(description="maximum tokens in any minute; more wait")] = 0
    max_waiting: Annotated[
        Limit,
        Field(description="maximum requests that wait for `concurrency`, `rpm` and `tpm`; 0 refuses them at once"),
    ] = 1000
    quota_tokens: Annotated[Limit, Field(description="maximum tokens in total, or until the next reset")] = 0
    quota_requests: Annotated[Limit, Field(description="maximum requests in total, or until the next reset")] = 0
    quota_reset: Annotated[
        Literal["never", "daily", "weekly", "monthly"], Field(description="how often the quotas are reset")
    ] = "never"
    quota_zone: Annotated[
        str, Field(max_length=64, description="time zone of the reset"), AfterValidator(validate_zone)
    ] = "UTC"
    cache_ttl: Annotated[
        int,
        Field(ge=-1, le=MAX_LIMIT, description="seconds for which answers are kept; 0: none are, -1: as the pool says"),
        BeforeValidator(coerce_integer),
    ] = -1
    weight: Annotated[
        float, Field(ge=0.01, le=1000, allow_inf_nan=False, description="share of the workers relative to other keys")
    ] = 1.0
    band: Annotated[
        Literal["interactive", "batch"], Field(description="`batch` uses the capacity that `interactive` leaves")
    ] = "interactive"


class ApiKey(KeyFields):
    """Record of an API key. Times are seconds since the epoch, 0 for never."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    #: First and last characters of the key, for recognition.
    hint: str
    created_at: float
    revoked_at: float = 0
    #: When it got its present secret in place of another one; until when one of the former ones is accepted at most.
    rotated_at: float = 0
    superseded_until: float = 0
    #: Secrets replaced before then are not accepted any more.
    superseded_ended_at: float = 0
    #: Incremented with each change.
    version: int = 1

    @property
    def is_expired(self) -> bool:
        return 0 < self.expires_at <= clock.now()

    def settable_fields(self) -> dict[str, Any]:
        return self.model_dump(include=set(KeyFields.model_fields))

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def allows_pool(self, name: str) -> bool:
        return matches_any(name, self.pools)

    def allows_model(self, name: str) -> bool:
        """`name` is the model name as callers send it, before any mapping."""
        return matches_any(name, self.models)

    def allows_address(self, address: str) -> bool:
        if not self.networks:
            return True
        parsed = parse_address(address)
        return parsed is not None and any(parsed in ipaddress.ip_network(network) for network in self.networks)


def matches_any(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a pattern matches the name; an empty tuple matches everything."""
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def validate_fields(fields: Mapping[str, Any]) -> KeyFields:
    """Raises BadField for the first invalid field."""
    try:
        return KeyFields.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise BadField(name, first["msg"].removeprefix("Value error, ")) from None
