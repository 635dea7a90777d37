"""`python -m workers`: runs the worker processes under a supervisor."""

from gevent import monkey

monkey.patch_all()

# The imports below must come after the patch.
import functools
import gc
import sys

from shared.errors import FarmError, SettingsError
from shared.settings.loading import load_settings
from workers.process.main import require_upstreams, serve
from workers.supervisor import Serve, Supervisor


def main() -> int:
    """Runs until SIGTERM or SIGINT."""
    try:
        settings = load_settings()
        if not settings.redis_url:
            raise SettingsError("REDIS_URL is not set (`./farm up` sets it for a private Redis)")
    except SettingsError as error:
        print(f"farm: {error}", file=sys.stderr)
        return 1
    gc.freeze()
    return Supervisor(functools.partial(serve, settings), settings.worker_process_count, reload_settings).run()


def reload_settings() -> Serve | None:
    """Loads farm.toml again and returns how to serve with it; None, with a message on stderr, when it is invalid."""
    try:
        settings = load_settings()
        require_upstreams(settings)
    except FarmError as error:
        print(f"farm: not reloaded, the settings are unchanged: {error}", file=sys.stderr, flush=True)
        return None
    print("farm: reloaded", file=sys.stderr, flush=True)
    return functools.partial(serve, settings)


if __name__ == "__main__":
    sys.exit(main())
