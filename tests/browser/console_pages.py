"""The console in a tab: logs in, opens pages in a language, a theme and a width, and takes their pictures."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.browser.chromium import Tab
from tests.browser.console_server import ConsoleServer

#: Name -> path of the pages that need no id.
PAGES = {
    "overview": "/admin/",
    "accounts": "/admin/accounts",
    "import": "/admin/accounts/import",
    "sign-ins": "/admin/sign-ins",
    "queue": "/admin/queue",
    "capacity": "/admin/capacity",
    "keys": "/admin/keys",
    "new-key": "/admin/keys/new",
    "usage": "/admin/usage",
    "requests": "/admin/requests",
    "batches": "/admin/batches",
    "files": "/admin/files",
    "playground": "/admin/playground",
    "plan": "/admin/plan?period=day",
    "pools": "/admin/pools",
    "events": "/admin/events",
    "system": "/admin/system",
}
HEIGHT = 900


@dataclass
class Console:
    """The console as an operator sees it."""

    tab: Tab
    server: ConsoleServer

    def log_in(self) -> None:
        self.open("/admin/login")
        enter_token(self.tab, self.server.token)

    def open(self, path: str, **query: str) -> None:
        separator = "&" if "?" in path else "?"
        text = "&".join(f"{name}={value}" for name, value in query.items())
        self.tab.go(f"{self.server.url}{path}{separator + text if text else ''}")

    def set_width(self, width: int) -> None:
        self.tab.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=HEIGHT, deviceScaleFactor=1, mobile=False
        )

    def find_overflow(self) -> list[str]:
        """`the page` and elements that reach beyond its right edge, outside of what scrolls by itself; else nothing."""
        return list(self.tab.evaluate(OVERFLOW_SCRIPT))

    def find_broken_words(self) -> list[str]:
        """Texts of cells in columns of one or two characters, as Chinese makes them that may be broken anywhere."""
        return list(self.tab.evaluate(BROKEN_WORDS_SCRIPT))

    def take_picture(self, path: Path) -> None:
        picture: dict[str, Any] = self.tab.call("Page.captureScreenshot", format="webp", quality=80)
        path.write_bytes(base64.b64decode(picture["data"]))


def enter_token(tab: Tab, token: str) -> None:
    """Logs in, on the login page."""
    enter(tab, "#token", token)
    tab.click("main button")


def shows(tab: Tab, selector: str) -> bool:
    return tab.is_true(f"!!document.querySelector({json.dumps(selector)})")


def read_texts(tab: Tab, selector: str) -> list[str]:
    """The text of each of these elements, in one line."""
    elements = f"[...document.querySelectorAll({json.dumps(selector)})]"
    return [" ".join(text.split()) for text in tab.evaluate(f"{elements}.map(element => element.innerText)")]


def read_text(tab: Tab, selector: str) -> str:
    return " ".join(read_texts(tab, selector))


def enter(tab: Tab, selector: str, value: str) -> None:
    """Enters a text in a field of a form."""
    tab.evaluate(f"document.querySelector({json.dumps(selector)}).value = {json.dumps(value)}")


def press(tab: Tab, selector: str) -> None:
    """Clicks an element that leads to no other page."""
    tab.evaluate(f"document.querySelector({json.dumps(selector)}).click()")


OVERFLOW_SCRIPT = """
document.documentElement.scrollWidth <= document.documentElement.clientWidth ? [] :
["the page", ...[...document.body.querySelectorAll("*")].filter(element =>
  element.getBoundingClientRect().right > document.documentElement.clientWidth && !element.closest(".wide, .hidden")
).map(element => element.outerHTML.slice(0, 120))]
"""

BROKEN_WORDS_SCRIPT = """
[...document.querySelectorAll("td:not(:has(details))")].filter(cell => {
  const range = document.createRange(), text = cell.innerText.replace(/\\s/g, "");
  range.selectNodeContents(cell);
  const lines = Math.round(range.getBoundingClientRect().height / parseFloat(getComputedStyle(cell).lineHeight));
  return lines > 2 && text.length > 2 && text.length <= 2 * lines;
}).map(cell => cell.innerText)
"""
