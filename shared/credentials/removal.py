"""What stays known of a removed credential, for the log, usage, and whoever still has a link to it."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from redis import Redis

from shared import keys
from shared.parsing import read_number
from shared.redis_connection.client import decode_hash

#: Seconds for which it is kept: as long as usage by the day.
KEPT_SECONDS = 400 * 86_400


@dataclass(frozen=True)
class Removal:
    """Which credential it was, when it was removed, in seconds since the epoch, and by whom, as in the audit log."""

    #: Its label, else its account, masked, else ''.
    name: str
    pool: str
    at: float
    by: str

    def describe(self) -> str:
        what = f"{self.name} of pool {self.pool}" if self.name else f"it, of pool {self.pool},"
        when = datetime.fromtimestamp(self.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"{what} was removed at {when}" + (f" by {self.by}" if self.by else "")


def keep_removal(redis: Redis, credential_id: str, removal: Removal) -> None:
    with redis.pipeline() as pipe:
        pipe.hset(keys.removed(credential_id), mapping=asdict(removal))
        pipe.expire(keys.removed(credential_id), KEPT_SECONDS)
        pipe.execute()


def read_removal(redis: Redis, credential_id: str) -> Removal | None:
    """None if no credential of this id was removed, or so long ago that nobody knows."""
    fields = decode_hash(redis.hgetall(keys.removed(credential_id)))
    if not fields:
        return None
    return Removal(fields.get("name", ""), fields.get("pool", ""), read_number(fields.get("at")), fields.get("by", ""))
