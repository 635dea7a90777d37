"""`python -m workers`: runs the worker processes and starts one that dies again; patches for gevent before all else."""

from gevent import monkey

monkey.patch_all()

# The imports below must come after the patch.
import functools
import gc
import sys

from shared.errors import SettingsError
from shared.settings import load
from workers.child import serve
from workers.supervisor import Supervisor


def main() -> int:
    """Runs until SIGTERM or SIGINT."""
    try:
        settings = load()
        if not settings.redis_url:
            raise SettingsError("REDIS_URL is not set (`./farm up` sets it for a private Redis)")
    except SettingsError as error:
        print(f"farm: {error}", file=sys.stderr)
        return 1
    gc.freeze()
    return Supervisor(functools.partial(serve, settings), settings.worker_process_count).run()


if __name__ == "__main__":
    sys.exit(main())
