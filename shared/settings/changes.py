"""What a reload would change: the settings in force beside those that are configured now, without secrets."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from shared.settings.schema import PoolSettings, Settings, describe, setting_fields

#: Settings of the sockets and of what the launcher starts; the running farm keeps those that it was started with.
RESTART_SETTINGS = ("host", "port", "https", "https_port", "redis_url", "data_dir")
ANOTHER = "another one"
#: Name and password in a URL.
USER_INFO = re.compile(r"(?<=://)[^/@\s]+@")


@dataclass(frozen=True)
class SettingChange:
    """A setting that differs; without a name the pool as a whole."""

    #: `changed`, `added` or `removed`.
    kind: str
    #: '' for a setting of the farm.
    pool: str
    name: str = ""
    #: In force, and configured; of a secret only whether it is set.
    before: str = ""
    after: str = ""
    #: Whether a reload can't put it into force.
    needs_restart: bool = False


def find_changes(running: Settings, wanted: Settings) -> list[SettingChange]:
    """Settings of the farm first, then those of its pools, in the order in which they are defined."""
    before, after = ({pool.name: pool for pool in settings.pools} for settings in (running, wanted))
    return [
        *compare("", running, wanted),
        *(change for name in after if name in before for change in compare(name, before[name], after[name])),
        *(SettingChange("added", name) for name in after if name not in before),
        *(SettingChange("removed", name) for name in before if name not in after),
    ]


def compare(pool: str, running: Settings | PoolSettings, wanted: Settings | PoolSettings) -> Iterator[SettingChange]:
    described, described_then = describe(running), describe(wanted)
    for name in setting_fields(type(running)):
        if getattr(running, name) != getattr(wanted, name):
            before, after = show(described[name]), show(described_then[name])
            # Of a secret or a password that was replaced by another one nothing else can be seen.
            after = f"{after} ({ANOTHER})" if after == before else after
            yield SettingChange("changed", pool, name, before, after, not pool and name in RESTART_SETTINGS)


def show(value: Any) -> str:
    """As an environment variable might have it, without passwords; '' for nothing."""
    value = ",".join(map(str, value)) if isinstance(value, tuple) else value
    value = int(value) if isinstance(value, float) and value.is_integer() else value
    return "" if value in (None, "", (), {}) else USER_INFO.sub("***@", str(value))
