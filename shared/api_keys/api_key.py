"""What is kept of an API key: its fields, their bounds, and what they allow; it opens nothing."""

import ipaddress
import time
import zoneinfo
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from shared.errors import BadField
from shared.ip_addresses import parse_address

#: Largest limit; beyond it a limit is none.
MAX_LIMIT = 10**15


def coerce_integer(value: Any) -> Any:
    """JSON knows no difference between 1 and 1.0 (RFC 8259 section 6)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def normalize_network(value: str) -> str:
    """A network in CIDR notation, or one address (RFC 4632, RFC 4291)."""
    return str(ipaddress.ip_network(value.strip(), strict=False))


def validate_zone(value: str) -> str:
    """A time zone of the IANA database."""
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is no time zone, such as Europe/Berlin") from None
    return value


Patterns = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=1000)]
Network = Annotated[str, Field(max_length=64), AfterValidator(normalize_network)]
Limit = Annotated[int, Field(ge=0, le=MAX_LIMIT), BeforeValidator(coerce_integer)]


class KeyFields(BaseModel):
    """What an operator may set. A limit of 0 is none; an empty list allows everything."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(max_length=200, description="a name to recognise it by")] = ""
    note: Annotated[str, Field(max_length=2000, description="the operator's note, e.g. whose it is")] = ""
    enabled: Annotated[bool, Field(description="whether requests may use it")] = True
    expires_at: Annotated[
        float,
        Field(
            ge=0, le=MAX_LIMIT, allow_inf_nan=False, description="when it ends: seconds since the epoch, 0 for never"
        ),
    ] = 0
    pools: Annotated[Patterns, Field(description="pools it may use, with * and ?")] = ()
    models: Annotated[Patterns, Field(description="models it may use, with * and ?")] = ()
    networks: Annotated[
        tuple[Network, ...], Field(max_length=1000, description="networks (CIDR) its callers may come from")
    ] = ()
    concurrency: Annotated[Limit, Field(description="most requests at once, waiting ones included")] = 0
    rpm: Annotated[Limit, Field(description="most requests in any minute")] = 0
    tpm: Annotated[Limit, Field(description="most tokens in any minute")] = 0
    quota_tokens: Annotated[Limit, Field(description="most tokens in all, or until the next reset")] = 0
    quota_requests: Annotated[Limit, Field(description="most requests in all, or until the next reset")] = 0
    quota_reset: Annotated[
        Literal["never", "daily", "weekly", "monthly"], Field(description="when what was used is forgotten")
    ] = "never"
    quota_zone: Annotated[
        str, Field(max_length=64, description="time zone of the reset"), AfterValidator(validate_zone)
    ] = "UTC"
    weight: Annotated[
        float, Field(ge=0.01, le=1000, allow_inf_nan=False, description="share of the workers beside other keys")
    ] = 1.0
    band: Annotated[Literal["interactive", "batch"], Field(description="`batch` takes what `interactive` leaves")] = (
        "interactive"
    )


class ApiKey(KeyFields):
    """What is kept of an API key. Times are seconds since the epoch, 0 for never."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    #: First and last characters, to recognise it by.
    hint: str
    created_at: float
    revoked_at: float = 0
    #: Grows with each change.
    version: int = 1

    @property
    def is_expired(self) -> bool:
        """Whether its time is over."""
        return 0 < self.expires_at <= time.time()

    def settable_fields(self) -> dict[str, Any]:
        """What an operator may set."""
        return self.model_dump(include=set(KeyFields.model_fields))

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return self.model_dump(mode="json")

    def allows_pool(self, name: str) -> bool:
        """Whether requests may go to that pool."""
        return matches_any(name, self.pools)

    def allows_model(self, name: str) -> bool:
        """Whether requests may ask for that model, by the name that callers use."""
        return matches_any(name, self.models)

    def allows_address(self, address: str) -> bool:
        """Whether a caller may come from that address."""
        if not self.networks:
            return True
        found = parse_address(address)
        return found is not None and any(found in ipaddress.ip_network(one) for one in self.networks)


def matches_any(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether one of the patterns fits; no pattern fits everything."""
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def validate_fields(fields: Mapping[str, Any]) -> KeyFields:
    """The fields, checked. Raises BadField, which names the first that is wrong."""
    try:
        return KeyFields.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise BadField(name, first["msg"].removeprefix("Value error, ")) from None
