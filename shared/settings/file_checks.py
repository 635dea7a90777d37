"""Checks the files that settings name, so that a missing one is an error at the start."""

import ssl
from pathlib import Path

from shared.errors import SettingsError
from shared.settings.schema import PoolSettings, Settings


def check_files(settings: Settings) -> None:
    """Raises SettingsError, which names the setting, unless all CA bundles and token files can be used."""
    check_ca_bundles(settings)
    for pool in settings.pools:
        read_token_file(pool)


def check_ca_bundles(settings: Settings) -> None:
    """Raises SettingsError unless every CA bundle, a file or a directory of certificates, can be loaded."""
    for pool in settings.pools:
        if not pool.ca_bundle:
            continue
        path = Path(pool.ca_bundle)
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(capath=path) if path.is_dir() else context.load_verify_locations(path)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SettingsError(f"pool {pool.name}: FARM_CA_BUNDLE: {path}: {reason}") from None


def read_token_file(pool: PoolSettings) -> list[str]:
    """Lines of the pool's file of refresh tokens; [] when it has none. Raises SettingsError."""
    if not pool.refresh_tokens_file:
        return []
    try:
        return Path(pool.refresh_tokens_file).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"pool {pool.name}: FARM_REFRESH_TOKENS_FILE: {error}") from None
