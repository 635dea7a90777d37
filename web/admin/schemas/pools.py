"""Models of pools and the live state."""

from typing import Annotated, Any

from pydantic import BaseModel, Field


class Pool(BaseModel):
    """Configuration of a pool; secrets appear only as `set` or `unset`."""

    name: str
    settings: dict[str, Any]


class PoolPause(BaseModel):
    """Whether a pool is paused."""

    pool: str
    paused_since: Annotated[float, Field(description="since when, in seconds since the epoch; 0 if it is not")]
    paused_by: Annotated[str, Field(description="who has paused it, as in the audit log")]


class PoolList(BaseModel):
    """All pools."""

    data: list[Pool]


class LivePool(BaseModel):
    """Live status of a pool."""

    name: str
    credentials: dict[str, int]
    workers: dict[str, int]
    queue_depth: dict[str, int]
    held: Annotated[dict[str, int], Field(description="requests that wait for a limit of their API key, by band")]
    utilisation: float
    private_credentials: Annotated[int, Field(description="number of private credentials")]
    upstream_down: bool
    upstream_failure: Annotated[str, Field(description="why its breaker is open, '' while it is closed")] = ""
    token_endpoint_failure: Annotated[
        str,
        Field(
            description="why the breaker of its token endpoint is open, `api_key_refused` while the upstream "
            "refuses its API keys, '' while it is closed"
        ),
    ]
    resting_until: Annotated[
        float,
        Field(
            description="when the first credential comes back while all rest, in seconds since the epoch; 0 while one "
            "is in service"
        ),
    ]
    drain_rate: Annotated[float, Field(description="requests finished per second, 0 if not yet known")]
    paused_since: Annotated[float, Field(description="since when it is paused, 0 if it is not")]
    paused_by: Annotated[str, Field(description="who has paused it, as in the audit log")]


class LiveDurability(BaseModel):
    """Whether Redis confirms that rotated refresh tokens are durable before they are used."""

    state: Annotated[
        str, Field(description="confirmed, unconfirmed, unknown, slow, replicas, write_error or no_aof; the worst one")
    ]
    since: Annotated[float | None, Field(description="seconds since the epoch, null if not known")]


class LiveFileStore(BaseModel):
    """Whether files can be stored."""

    state: Annotated[str, Field(description="ok, full or away")]
    since: Annotated[float | None, Field(description="seconds since the epoch, null for ok")]


class Live(BaseModel):
    """Live status of the farm."""

    pools: list[LivePool]
    durability: LiveDurability
    file_store: LiveFileStore
    worker_processes: int
    web_processes: int
