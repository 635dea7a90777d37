"""The first API key and admin token, made when a farm starts without any."""

from redis import Redis

from launcher.processes.service_manager import is_output_kept
from shared.api_keys.admin_tokens import AdminTokens
from shared.api_keys.store import ApiKeys
from shared.observability.audit_log import store_configured_token
from shared.settings.schema import Settings

NO_KEY_HINT = "there is no API key yet: ./farm keys create --name NAME"
NO_TOKEN_HINT = "there is no admin token yet: ./farm admin-tokens create NAME --role admin"  # noqa: S105 (a hint)


def create_first_secrets(settings: Settings, redis: Redis) -> list[str]:
    """Creates the first API key and admin token; returns the lines that show them, this once.

    Where the output is kept, it only says how to create them.
    """
    lines = []
    api_keys, is_kept = ApiKeys(redis), is_output_kept()
    if settings.api_key:
        api_keys.create_if_missing(settings.api_key, "FARM_API_KEY")
    elif not api_keys.list():
        lines.append(NO_KEY_HINT if is_kept else f"API key (shown once): {api_keys.create('first key')[0]}")
    if settings.admin_token:
        store_configured_token(redis, settings.admin_token)
    elif is_kept:
        return lines if AdminTokens(redis).list() else [*lines, NO_TOKEN_HINT]
    admin_token = AdminTokens(redis).ensure_first(settings.admin_token)
    if admin_token:
        lines.append(f"admin token (shown once): {admin_token}")
    return lines
