"""Finds the changed settings that a reload can't put into force."""

from launcher.processes.bundled_simulator import has_upstream
from shared.settings.changes import RESTART_SETTINGS
from shared.settings.schema import PoolSettings, Settings, setting_fields


def find_restart_settings(started: Settings, wanted: Settings) -> list[str]:
    """Variables of the settings that differ from those of the start and need a restart; [] for none."""
    changed = [name for name in RESTART_SETTINGS if getattr(started, name) != getattr(wanted, name)]
    variables = [setting_fields(Settings)[name].metadata["env"] for name in changed]
    if "https" in changed and started.domain != wanted.domain:
        variables.append("FARM_DOMAIN")
    if has_upstream(started) != has_upstream(wanted):
        variables.append(setting_fields(PoolSettings)["upstream_url"].metadata["env"])
    return variables


def describe_restart(variables: list[str]) -> str:
    """The sentence about them, '' when there are none."""
    if not variables:
        return ""
    verb = "needs" if len(variables) == 1 else "need"
    return f"{', '.join(variables)} {verb} `./farm restart`; the farm goes on with what it was started with"
