"""What was used in the last 24 hours."""

import time
from typing import Any

from shared.observability.usage import SumsQuery, UsageSums
from web.console.parts.formats import DAY
from web.services import services

#: Requests, failures and tokens, by name.
Usage = dict[str, Any]


def sum_last_day(group_by: str, **filters: str) -> list[Usage]:
    """Sums by `group_by`, in its order; `time` stands for hours. `filters`: name -> value."""
    now = time.time()
    return UsageSums(services().redis).query(SumsQuery(now - DAY, now, group_by=(group_by,), filters=filters))
