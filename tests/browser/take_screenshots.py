"""`python -m tests.browser.take_screenshots [FOLDER]`: pictures of every page of the console, for docs/console.

They show a farm that the command starts, under load for two minutes (demo_farm.py).
"""

import tempfile

import tests.patched  # noqa: F401  (gevent patches first)

import sys  # isort: skip
import time  # isort: skip
from pathlib import Path  # isort: skip

from tests.browser.chromium import run_chromium  # isort: skip
from tests.browser.conftest import find_chromium  # isort: skip
from tests.browser.console_pages import PAGES, Console  # isort: skip
from tests.browser.console_server import ConsoleServer  # isort: skip
from tests.browser.demo_farm import DemoFarm, run_demo_farm  # isort: skip
from web.live_feed import LiveFeed  # isort: skip

FOLDER = Path("docs/console")
#: Language, theme and width -> pages; all of them in the first.
VIEWS = {
    ("en", "light", 1440): (),
    ("zh", "dark", 1440): ("overview", "queue", "accounts", "account", "capacity", "batches"),
    ("en", "dark", 360): ("overview", "queue", "account"),
}
#: Seconds until a live page has been updated.
UPDATE_SECONDS = 2.5


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data, run_demo_farm(Path(data) / "farm") as demo:
        take_all(demo, Path(data), folder)


def list_pages(demo: DemoFarm) -> dict[str, str]:
    ids = [record["id"] for record in demo.farm.credentials() if record["state"] == "active"]
    bulk = demo.farm.admin("POST", "/bulk", json={"action": "refresh", "ids": ids}).json()["id"]
    return PAGES | {
        "account": f"/admin/accounts/{demo.find_account('cooling')}",
        "request": f"/admin/requests/{demo.find_retried_request()}",
        "key": f"/admin/keys/{demo.keys['browser extension']}",
        "bulk": f"/admin/bulk/{bulk}",
        "batch": f"/admin/batches/{demo.batches[-1]}",
    }


def take_all(demo: DemoFarm, data: Path, folder: Path) -> None:
    server = ConsoleServer(demo.farm.url, demo.token, demo.redis, LiveFeed())
    with run_chromium(find_chromium(), data, ()) as browser:
        console = Console(browser.open_tab(f"{server.url}/admin/login"), server)
        console.tab.call("Page.enable")
        console.log_in()
        pages = list_pages(demo)
        for (language, theme, width), names in VIEWS.items():
            console.set_width(width)
            for name in names or pages:
                console.open(pages[name], lang=language, theme=theme)
                time.sleep(UPDATE_SECONDS)
                console.take_picture(folder / f"{name}-{language}-{theme}-{width}.webp")


if __name__ == "__main__":
    main()
