"""`python -m workers`: runs the worker processes and restarts one that dies."""

import sys

from shared.errors import SettingsError
from shared.settings import load
from workers.supervisor import IMPORT, Supervisor


def main() -> int:
    """Runs until SIGTERM or SIGINT."""
    try:
        settings = load()
        if not settings.redis_url:
            raise SettingsError("REDIS_URL is not set (`./farm up` sets it for a private Redis)")
    except SettingsError as error:
        print(f"farm: {error}", file=sys.stderr)
        return 1
    return Supervisor([sys.executable, "-m", "workers.child"], settings.worker_process_count, [IMPORT]).run()


if __name__ == "__main__":
    sys.exit(main())
