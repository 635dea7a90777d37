"""`python -m tests.browser.take_screenshots [FOLDER]`: pictures of every page of the console, for docs/console."""

import tempfile

import tests.patched  # noqa: F401  (gevent patches first)

import sys  # isort: skip
from pathlib import Path  # isort: skip

from redis import Redis  # isort: skip

from launcher.processes import redis_server  # isort: skip
from shared.redis_connection.client import connect  # isort: skip
from tests.browser.chromium import run_chromium  # isort: skip
from tests.browser.conftest import find_chromium  # isort: skip
from tests.browser.console_pages import PAGES, Console  # isort: skip
from tests.browser.console_server import serve_console  # isort: skip
from tests.console_content import fill_farm  # isort: skip
from web.admin.bulk.progress import ProgressStore  # isort: skip

FOLDER = Path("docs/console")
#: Language, theme and width -> pages; all of them in the first.
VIEWS = {
    ("en", "light", 1440): (),
    ("zh", "dark", 1440): ("overview", "accounts", "account", "bulk", "pools", "usage"),
    ("en", "light", 360): ("overview", "accounts", "account", "bulk", "pools"),
}


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data:
        server = redis_server.start(Path(data))
        try:
            take_all(redis_server.build_url(Path(data)), Path(data), folder)
        finally:
            server.terminate()
            server.wait()


def add_operation(redis: Redis, ids: list[str]) -> str:
    """An operation on all accounts, of which one part is done."""
    store = ProgressStore(redis)
    operation = store.begin("test", len(ids))
    store.record(operation, dict.fromkeys(ids[:12], "ok") | dict.fromkeys(ids[12:14], "invalid_grant"))
    return operation


def take_all(redis_url: str, data: Path, folder: Path) -> None:
    redis = connect(redis_url)
    ids = fill_farm(redis, odd_name="reader")
    with serve_console(redis, redis_url) as server, run_chromium(find_chromium(), data, ()) as browser:
        console = Console(browser.open_tab(f"{server.url}/admin/login"), server)
        console.tab.call("Page.enable")
        console.log_in()
        pages = PAGES | {
            "account": f"/admin/accounts/{ids[3]}",
            "request": "/admin/requests/req_17",
            "bulk": f"/admin/bulk/{add_operation(redis, ids)}",
        }
        for (language, theme, width), names in VIEWS.items():
            console.set_width(width)
            for name in names or pages:
                console.open(pages[name], lang=language, theme=theme)
                console.take_picture(folder / f"{name}-{language}-{theme}-{width}.png")


if __name__ == "__main__":
    main()
