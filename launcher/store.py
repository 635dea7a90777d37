"""What the operator's commands work on: the settings and the Redis of the farm that runs, or of REDIS_URL."""

import sys
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from redis import Redis
from redis.exceptions import RedisError

from launcher.processes import redis_server
from launcher.processes.data_dir import DataDir
from shared.credentials.unsealing import load_unsealer
from shared.errors import FarmError
from shared.observability.audit_log import AuditLog
from shared.redis_connection.client import check_server, connect
from shared.settings.loading import load_settings
from shared.settings.schema import Settings

P = ParamSpec("P")
R = TypeVar("R")


def open_store() -> tuple[Settings, Redis]:
    """Settings and Redis. Raises FarmError when the farm does not run and REDIS_URL is unset."""
    settings = load_settings()
    url = settings.redis_url
    if not url:
        data = DataDir(settings.data_dir)
        if not data.is_locked():
            raise FarmError("the farm does not run here: start it with `./farm up`, or set REDIS_URL")
        url = redis_server.build_url(data.path)
    redis = connect(url)
    check_server(redis)
    load_unsealer(settings).claim(redis)
    return settings, redis


def record_change(redis: Redis, action: str, target: str, details: Mapping[str, Any] | None = None) -> None:
    """A line in the audit log."""
    AuditLog(redis).record("command line", action, target, details)


def exit_on_error(command: Callable[P, R]) -> Callable[P, R]:
    """A command whose known errors are one line on standard error and exit code 1."""

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except BrokenPipeError:
            raise
        except (FarmError, RedisError, OSError) as error:
            print(f"farm: {error}", file=sys.stderr)
            sys.exit(1)

    return wrapper
