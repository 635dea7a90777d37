"""Checks that a pool's settings fit the kind of its credentials (FARM_CREDENTIAL_KIND)."""

from pathlib import Path

from shared.errors import SettingsError
from shared.settings.schema import PoolSettings, Settings


def check_kinds(settings: Settings) -> None:
    """Raises SettingsError, which names the settings that contradict each other."""
    for pool in settings.pools:
        if problem := find_contradiction(pool):
            raise SettingsError(f"pool {pool.name}: {problem}")


def find_contradiction(pool: PoolSettings) -> str:
    """What is wrong with the pool's settings, '' for nothing."""
    kind, is_jwt = pool.credential_kind, pool.token_auth == "private_key_jwt"  # noqa: S105
    if pool.private_credentials and kind != "refresh_token":
        return f"FARM_PRIVATE_CREDENTIALS are refresh tokens, and FARM_CREDENTIAL_KIND is {kind}"
    if pool.token_request == "bearer" and kind in ("client_credentials", "service_account"):  # noqa: S105
        return f"FARM_TOKEN_REQUEST=bearer sends a refresh token, and FARM_CREDENTIAL_KIND is {kind}"
    if is_jwt and kind == "client_credentials":
        return "FARM_TOKEN_AUTH=private_key_jwt is for one client, and with client_credentials each credential is one"
    if is_jwt and not pool.client_id:
        return "FARM_TOKEN_AUTH=private_key_jwt needs FARM_CLIENT_ID"
    return ""


def read_token_auth_key(pool: PoolSettings) -> str:
    """The key of FARM_TOKEN_AUTH_KEY in PEM, '' if the pool needs none. Only workers have it.

    Raises SettingsError, which repeats nothing of it.
    """
    if pool.token_auth != "private_key_jwt":  # noqa: S105
        return ""
    setting, text = f"pool {pool.name}: FARM_TOKEN_AUTH_KEY", pool.token_auth_key.replace("\\n", "\n")
    if text and "-----BEGIN" not in text:
        try:
            text = Path(text).read_text()
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise SettingsError(f"{setting} is neither PEM nor a readable file: {type(error).__name__}") from None
    if "PRIVATE KEY-----" not in text:
        raise SettingsError(f"{setting}: private_key_jwt needs a private key in PEM")
    return text
