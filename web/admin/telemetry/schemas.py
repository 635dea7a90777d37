"""Models of the live view's part of the admin API. Times are seconds since the epoch."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from shared.observability.event_log import EVENTS
from shared.observability.tape import TAPE_SECONDS
from web.admin.schemas.fields import Identifier, Page, StrictModel, Timestamp

PoolName = Annotated[Identifier, Field(description="only this pool, which may be a private credential's")]
Band = Literal["interactive", "batch"]
AccountSeconds = Annotated[
    dict[str, float],
    Field(description="seconds of workers by what they did; `idle_waiting` is capacity lost while somebody waited"),
]


class QueueQuery(StrictModel):
    """Which queues to show, and how much of each."""

    pool: PoolName = ""
    limit: Annotated[int, Field(ge=0, le=1000, description="maximum waiting requests of each pool")] = 100


class WaitingQuery(QueueQuery):
    """Which queues to show, and what to foretell."""

    more_accounts: Annotated[
        int, Field(ge=1, le=10_000, description="accounts that the pool might have more, for `clock`")
    ] = 10


class LiveRequestFields(BaseModel):
    """What waiting and running requests have in common."""

    request: Annotated[str, Field(description="request id")]
    pool: str
    key: str
    key_name: str
    model: str
    endpoint: str
    band: Band
    stream: bool
    admitted_at: float
    failed_attempts: Annotated[int, Field(description="attempts that have failed so far")]


class Waiting(LiveRequestFields):
    """A waiting request."""

    state: Annotated[
        Literal["queued", "retry", "held"],
        Field(description="`retry`: waits for another credential; `held`: by a limit of its API key, without a turn"),
    ]
    position: Annotated[int, Field(description="its turn, from 1; 0 for a held request")]
    eta: Annotated[
        float | None, Field(description="estimated seconds until it is started; null when that can't be told")
    ]


class Running(LiveRequestFields):
    """A running request."""

    credential: str
    credential_name: Annotated[str, Field(description="label of the credential, or its account, masked")]
    started_at: float
    has_begun: Annotated[bool, Field(description="whether its reply has begun, after which nothing is retried")]


class Rival(BaseModel):
    """An API key for whose requests another one waits."""

    key: str
    key_name: str
    running: int
    ahead: Annotated[int, Field(description="its requests that will be started before the other key's next one")]


class QueueKey(BaseModel):
    """An API key with requests in a pool."""

    key: str
    key_name: str
    weight: float
    waiting: int
    running: int
    entitled: Annotated[float, Field(description="its share of the workers by weight, of the keys listed here")]
    next_position: Annotated[int, Field(description="turn of its next request, 0 if it is not among those listed")]
    waits_for: Annotated[list[Rival], Field(description="the keys before its next request, those with most requests")]


class FairShare(BaseModel):
    """What an API key got of the workers' time in the last five minutes, and what its weight entitled it to."""

    key: str
    key_name: str
    weight: float
    got_seconds: float
    got: Annotated[float, Field(description="its share of the seconds of all keys")]
    entitled_seconds: Annotated[
        float, Field(description="by weight, of each half minute in which it had requests, among those that had some")
    ]
    entitled: float


class BandWait(BaseModel):
    """The requests of one band."""

    waiting: int
    held: Annotated[int, Field(description="requests that wait for a limit of their API key")]
    oldest_seconds: Annotated[float | None, Field(description="how long the oldest has waited; null for none")]


class DrainClock(BaseModel):
    """When the queue will be empty or full, in seconds from now; null for what isn't known or won't happen."""

    arrival_rate: Annotated[
        float | None, Field(description="requests per second that joined the queue in the last minute and stayed")
    ]
    capacity: Annotated[float | None, Field(description="requests per second that the workers in service can serve")]
    empty_in: Annotated[float | None, Field(description="if nothing more arrives")]
    more_accounts: int
    empty_in_with_more: Annotated[float | None, Field(description="the same with `more_accounts` more")]
    empty_in_at_rate: Annotated[float | None, Field(description="if requests go on arriving at `arrival_rate`")]
    full_in: Annotated[float | None, Field(description="the same, until FARM_MAX_QUEUE requests wait (`queue_full`)")]


class BatchPatience(BaseModel):
    """How long batch requests go on waiting behind interactive ones."""

    oldest: Annotated[float, Field(description="seconds for which the oldest has waited")]
    due_after: Annotated[float, Field(description="seconds after which one is due (FARM_BATCH_AGE)")]
    turns: Annotated[int, Field(description="interactive requests started since the last batch request")]
    every: Annotated[int, Field(description="one in how many starts is a due batch request (FARM_BATCH_TURNS)")]
    next_position: Annotated[int, Field(description="turn of the next one; 0 if it is not among those listed")]
    next_in: Annotated[float | None, Field(description="estimated seconds until that; null when it can't be told")]


class PoolQueue(BaseModel):
    """The queue of a pool."""

    pool: str
    bands: dict[str, BandWait]
    workers: dict[str, int]
    utilisation: float
    upstream_down: bool
    paused_since: Annotated[float, Field(description="since when the pool is paused, 0 if it is not")]
    paused_by: Annotated[str, Field(description="who has paused it, as in the audit log")]
    mean_seconds: Annotated[
        float | None, Field(description="average seconds of a worker's time per request; null if none was measured")
    ]
    drained_in: Annotated[
        float | None, Field(description="estimated seconds until all that wait now are started; null if not known")
    ]
    clock: DrainClock
    patience: Annotated[BatchPatience | None, Field(description="null while no batch request waits")]
    waiting: Annotated[list[Waiting], Field(description="in the order in which they will be started")]
    held: list[Waiting]
    keys: list[QueueKey]
    fairness: Annotated[list[FairShare], Field(description="the last five minutes, the key with the most time first")]


class PoolQueues(BaseModel):
    """The queues of all pools."""

    data: list[PoolQueue]


class RunningList(BaseModel):
    """Running requests, the oldest first."""

    data: list[Running]


class Cancellation(BaseModel):
    """What has become of a cancelled request."""

    outcome: Annotated[
        Literal["withdrawn", "stopping"], Field(description="it was waiting, or its worker is being told to stop")
    ]


class PlanQuery(StrictModel):
    """Which load of the past, and how long its requests shall wait at most."""

    pool: PoolName = ""
    period: Annotated[
        Literal["busiest-hour", "busiest-hour-of-week", "hour", "day"],
        Field(description="the busiest hour of the last 24 hours or 7 days, the last hour, the last 24 hours"),
    ] = "busiest-hour"
    since: Annotated[Timestamp | None, Field(description="in place of `period`, together with `until`")] = None
    until: Timestamp | None = None
    wait: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False, description="seconds")] = 5.0
    percent: Annotated[
        float, Field(ge=1, le=100, allow_inf_nan=False, description="share of the requests that wait no longer")
    ] = 95.0


class Outlook(BaseModel):
    """What the load would have met with so many accounts; waits in seconds."""

    accounts: int
    wait: Annotated[float, Field(description="that `percent` of the requests don't exceed")]
    share_in_time: Annotated[float, Field(description="share of the requests that wait no longer than wished")]
    p50: float
    p95: float
    p99: float
    utilisation: float


class Plan(BaseModel):
    """How many accounts a load of the past would have needed."""

    pool: str
    since: float
    until: float
    requests: int
    is_cut: Annotated[bool, Field(description="whether only the latest requests of the period were taken")]
    refused: Annotated[int, Field(description="requests refused by a full queue, which are not in the load")]
    mean_seconds: Annotated[float, Field(description="average seconds of an account's time per request")]
    offered: Annotated[float, Field(description="accounts that the load kept busy on average")]
    service_share: Annotated[
        float | None, Field(description="share of the accounts' time in which they could serve; null if not sampled")
    ]
    present: Annotated[int, Field(description="accounts that are active now")]
    accounts: Annotated[
        int | None,
        Field(description="fewest that do if they never rest, by a replay of the load; null: no load, or none"),
    ]
    accounts_with_rests: Annotated[int | None, Field(description="the same with the rests that were measured")]
    accounts_by_erlang_c: Annotated[
        int | None, Field(description="for comparison; too few when requests come in bursts")
    ]
    outlooks: list[Outlook]


class TapeQuery(StrictModel):
    """Which part of the tape."""

    pool: PoolName = ""
    seconds: Annotated[int, Field(ge=1, le=TAPE_SECONDS, description="how many seconds, the last that are over")] = (
        TAPE_SECONDS
    )


class TapeRow(BaseModel):
    """What one credential's worker did."""

    credential: str
    credential_name: str
    pool: str
    state: Annotated[str, Field(description="the credential's state now")]
    letters: Annotated[str, Field(description="one for each second")]


class Tape(BaseModel):
    """What the credentials' workers did, second by second."""

    begins_at: Annotated[int, Field(description="the first second")]
    seconds: int
    legend: Annotated[dict[str, str], Field(description="letter -> what it stands for")]
    data: list[TapeRow]


class EventQuery(Page):
    """Filter and page of the events, newest first."""

    since: Timestamp | None = None
    until: Timestamp | None = None
    kind: Annotated[Identifier, Field(description="only events of this kind")] = ""
    pool: Identifier = ""
    credential: Identifier = ""


class EventFault(BaseModel):
    """One of the attempts that have opened a circuit breaker."""

    time: float
    credential: str
    credential_name: Annotated[str, Field(description="label of the credential, or its account, masked")]
    request: str
    reason: Annotated[str, Field(description="outcome of the attempt")]


class Event(BaseModel):
    """Something that happened."""

    id: str
    time: float
    kind: Annotated[str, Field(description="such as " + ", ".join(f"`{kind}`" for kind in EVENTS))]
    pool: str
    credential: str
    credential_name: Annotated[str, Field(description="label of the credential, or its account, masked")]
    reason: Annotated[str, Field(description="why; of kind `operator` the action, as in the audit log")]
    evidence: Annotated[str, Field(description="the response behind a state, e.g. `upstream 429 rate_limited`")]
    until: Annotated[float, Field(description="until when an account rests, 0 if that isn't known")]
    request: str
    worker_process: str
    message: str
    who: Annotated[str, Field(description="the operator, as in the audit log")]
    target: Annotated[str, Field(description="what the operator changed")]
    faults: Annotated[
        list[EventFault], Field(description="the attempts that have opened a breaker, the last 20, the oldest first")
    ] = []


class EventPage(BaseModel):
    """A page of events; `next` is the cursor of the next page, null on the last."""

    data: list[Event]
    next: str | None


class Incident(BaseModel):
    """A circuit breaker from its opening to its close."""

    opened: Event
    probes: Annotated[list[Event], Field(description="the failed ones, the oldest first")]
    closed: Annotated[Event | None, Field(description="null while it is open, or if its close is not known")]
    meanwhile: Annotated[dict[str, int], Field(description="kind -> other events of the pool until it was closed")]


class SampleQuery(StrictModel):
    """Which samples."""

    since: Timestamp | None = None
    until: Timestamp | None = None
    step: Annotated[Literal["5", "60"], Field(description="seconds: 5 for the last hour, 60 for the last day")] = "5"


class SampledPool(BaseModel):
    """A pool in an interval; `waiting`, `held`, `busy` and `workers` are of its end."""

    finished: int
    failed: int
    arrived: Annotated[int, Field(description="requests that were admitted, computed from the others")]
    account_seconds: AccountSeconds
    waiting: int
    held: int
    busy: int
    workers: int


class SampledInterval(BaseModel):
    """What happened between two samples."""

    time: Annotated[float, Field(description="its end")]
    seconds: float
    pools: dict[str, SampledPool]
    statuses: Annotated[dict[str, int], Field(description="HTTP status -> requests that have ended")]
    queue_wait: Annotated[
        dict[str, float | None], Field(description="p50 and p95 in seconds, estimated from a histogram; null for none")
    ]
    first_byte: Annotated[dict[str, float | None], Field(description="the same from admission to the first byte")]


class Samples(BaseModel):
    """Intervals, the oldest first."""

    data: list[SampledInterval]


class PoolCapacity(BaseModel):
    """What the time of a pool's accounts went into."""

    pool: str
    account_seconds: AccountSeconds
    total: float
    lost: Annotated[float, Field(description="account-seconds that were idle while a request waited")]
    lost_share: Annotated[float | None, Field(description="their share of the total; null for none")]


class PoolPeak(BaseModel):
    """Most requests at once on one account of a pool."""

    pool: str
    most: Annotated[int, Field(description="most requests ever in flight on one account; 0 before the first one")]
    allowed: Annotated[int, Field(description="FARM_SLOTS")]


class CollisionMeter(BaseModel):
    """Whether more requests than allowed ever met on one account."""

    peaks: list[PoolPeak]
    seen: Annotated[int, Field(description="requests that began on an account with another one in flight")]
    turns_refused: Annotated[
        int, Field(description="requests not begun or not sent because the worker had lost the account's lease")
    ]


class Capacity(BaseModel):
    """What accounts' time went into."""

    seconds: Annotated[float, Field(description="the time of which this is told: an hour, less after a start")]
    data: list[PoolCapacity]
    collisions: CollisionMeter


class CapacityQuery(StrictModel):
    """Which accounts."""

    pool: PoolName = ""


class AccountTime(BaseModel):
    """What the workers of a credential did."""

    credential: str
    credential_name: str
    pool: str
    state: Annotated[str, Field(description="the credential's state now")]
    seconds: AccountSeconds
    busy_share: Annotated[float | None, Field(description="busy share of its workers' time; null for no worker")]
    busy_shares: Annotated[list[float | None], Field(description="the same of each hour")]


class AccountTimes(BaseModel):
    """What the workers of each credential did, by the hour."""

    hours: Annotated[list[int], Field(description="first second of each hour, the oldest first")]
    data: list[AccountTime]
