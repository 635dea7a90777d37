"""Opens the Redis of the running farm, or of REDIS_URL, for the operator's commands."""

from collections.abc import Mapping
from typing import Any

from redis import Redis

from launcher.processes import redis_server
from launcher.processes.data_dir import DataDir
from shared.credentials.unsealing import load_unsealer
from shared.errors import FarmError
from shared.observability.audit_log import AuditLog
from shared.redis_connection.client import build_server_url, check_server, connect
from shared.redis_connection.data_version import stamp_data
from shared.settings.loading import load_settings
from shared.settings.schema import Settings

#: Who makes the changes of commands, as the audit log calls them.
COMMAND_LINE = "command line"


def open_store() -> tuple[Settings, Redis]:
    """Returns the settings and Redis. Raises FarmError when the farm is not running and REDIS_URL is unset."""
    settings = load_settings()
    redis = connect(find_redis_url(settings))
    check_server(redis)
    stamp_data(redis)
    load_unsealer(settings).ensure_sealing_key(redis)
    return settings, redis


def find_redis_url(settings: Settings) -> str:
    """The URL of Redis. Raises FarmError when the farm is not running and REDIS_URL is unset."""
    data = DataDir(settings.data_dir)
    if not settings.redis_url and not data.is_locked():
        raise FarmError("the farm is not running here: start it with `./farm up`, or set REDIS_URL")
    return settings.redis_url or redis_server.build_url(data.path)


def find_server_url(settings: Settings) -> str:
    """The URL of the one server, for a program that asks no sentinels itself. Raises FarmError, RedisError."""
    return build_server_url(find_redis_url(settings))


def record_change(redis: Redis, action: str, target: str, details: Mapping[str, Any] | None = None) -> None:
    """Writes an entry to the audit log."""
    AuditLog(redis).record(COMMAND_LINE, action, target, details)
