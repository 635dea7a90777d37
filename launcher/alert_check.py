"""Asks apprise whether it knows the services of FARM_ALERT_URLS, in a process of its own: it takes long to load."""

import subprocess
import sys
from pathlib import Path

from shared.alerts.orders import CHECK, Order, Outcome
from shared.alerts.receivers import mask_url
from shared.decoding import UnreadableRecord
from shared.settings.schema import Settings

ROOT = Path(__file__).resolve().parent.parent
#: Seconds that a check may take.
TIMEOUT_SECONDS = 60


def find_alert_warnings(settings: Settings) -> list[str]:
    """What is wrong with the URLs, without their secrets."""
    return [warning for url in settings.alert_urls if (warning := check_url(url))]


def check_url(url: str) -> str:
    order = Order("", url, "", "", "", CHECK)
    command = [sys.executable, "-m", "workers.alerts"]
    try:
        result = subprocess.run(command, cwd=ROOT, input=order.encode(), capture_output=True, timeout=TIMEOUT_SECONDS)
        return Outcome.decode(result.stdout).error
    except (subprocess.TimeoutExpired, UnreadableRecord):
        return f"FARM_ALERT_URLS: {mask_url(url)} could not be checked"
