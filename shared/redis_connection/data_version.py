"""Version of the data in Redis: a farm refuses data that only a newer one understands, instead of spoiling it."""

from pathlib import Path
from typing import cast

from redis import Redis

from shared import keys
from shared.errors import FarmError
from shared.redis_connection.client import register_script

#: Version of the keys and records that this farm writes. Data without a stamp, of 0.1 before it had one, has version 0.
#: Raise it when the meaning of a key or field changes; a new field with a default needs no new version.
DATA_VERSION = 1
#: Oldest version that may work beside this one on the same Redis. Raise it together with DATA_VERSION when an older
#: farm would misread what this one writes; it is then refused at its next start.
OLDEST_COMPATIBLE_VERSION = 0


class DataTooNew(FarmError):
    """Raised when the data in Redis needs a newer farm."""


def stamp_data(redis: Redis, version: int = DATA_VERSION, needs: int = OLDEST_COMPATIBLE_VERSION) -> None:
    """Stamps the data with this farm's version, before anything else is written. Raises DataTooNew, RedisError.

    Data of an older version keeps its form: every change so far is one that readers of both sides tolerate.
    """
    script = register_script(redis, Path(__file__).with_name("stamp_data.lua"))
    is_stamped, stored, needed = cast("list[int]", script(keys=[keys.DATA_VERSION], args=[version, needs]))
    if not is_stamped:
        raise DataTooNew(
            f"the data in Redis was written by a newer farm (data version {stored}) and needs one that knows version "
            f"{needed}; this one knows version {version}: update it"
        )
