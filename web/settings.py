"""The settings of the fronts: loaded by gunicorn's master, and loaded again at a reload."""

from shared.errors import SettingsError
from shared.settings.file_checks import check_ca_bundles
from shared.settings.loading import load_settings
from shared.settings.schema import Settings


def load_front_settings() -> Settings:
    """Loads and checks the settings. Raises SettingsError.

    The files of refresh tokens are not read: the front may be unable to (I9).
    """
    settings = load_settings()
    if not settings.redis_url:
        raise SettingsError("REDIS_URL is not set (`./farm up` sets it for a private Redis)")
    check_ca_bundles(settings)
    return settings


class FrontSettings:
    """The settings with which fronts start."""

    def __init__(self) -> None:
        """Raises SettingsError."""
        self.current = self._previous = load_front_settings()

    @property
    def front_count(self) -> int:
        return self.current.front_count

    @property
    def drain_seconds(self) -> float:
        return self.current.drain

    def load(self) -> None:
        """Loads them again. Raises SettingsError and keeps the old ones if they are invalid."""
        self._previous, self.current = self.current, load_front_settings()

    def revert(self) -> None:
        """Returns to those before the last `load`."""
        self.current = self._previous
