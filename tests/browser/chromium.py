"""Drives headless Chromium by the DevTools protocol over two pipes, which needs no library and no port."""

import fcntl
import itertools
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.waiting import eventually

#: Nothing but what the tests ask for goes over the network.
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-default-apps"),
    *("--remote-debugging-pipe", "about:blank"),
)
#: File descriptors on which Chromium reads commands and writes replies and events.
COMMANDS, REPLIES = 3, 4
#: Seconds that Chromium may take to reply: starting it on a busy machine takes several.
PATIENCE_SECONDS = 120.0


class BrowserError(Exception):
    """Raised when Chromium has ended, is silent, or refuses a command."""


class Chromium:
    """A running browser."""

    def __init__(self, process: "subprocess.Popen[bytes]", commands: int, replies: int) -> None:
        self._process = process
        self._commands, self._replies = commands, replies
        self._numbers = itertools.count(1)
        self._received = b""
        #: Events that have arrived so far: method and parameters.
        self.events: list[tuple[str, dict[str, Any]]] = []

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol and returns its result. Raises BrowserError."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (reply := self._read_message()).get("id") != number:
            self.events.append((reply.get("method", ""), reply.get("params", {})))
        if "error" in reply:
            raise BrowserError(f"{method}: {reply['error']}")
        return dict(reply["result"])

    def open_tab(self, url: str, *, in_window: bool = False) -> "Tab":
        """Opens a page and waits until it is loaded.

        `in_window`: in a window of its own, so that neither it nor the pages that are open are hidden.
        """
        target = self.call("Target.createTarget", url=url, newWindow=in_window)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Network.enable", session)
        tab = Tab(self, target, session)
        # A new tab shows an empty page at first.
        eventually(lambda: tab.is_true(f"document.readyState == 'complete' && location == {json.dumps(url)}"))
        return tab

    def drop_events(self) -> None:
        """Forgets what has happened so far, also what was not read yet."""
        self.call("Browser.getVersion")
        self.events.clear()

    def _read_message(self) -> dict[str, Any]:
        """The next reply or event; messages end with a zero byte."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while b"\0" not in self._received:
            is_readable, _, _ = select.select([self._replies], [], [], max(0.0, deadline - time.monotonic()))
            part = os.read(self._replies, 65_536) if is_readable else b""
            if not part:
                raise BrowserError("Chromium has ended" if is_readable else "Chromium does not reply")
            self._received += part
        message, _, self._received = self._received.partition(b"\0")
        return dict(json.loads(message))

    def close(self) -> None:
        with suppress(BrowserError, OSError):
            self.call("Browser.close")
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        self._process.kill()
        self._process.wait()


class Tab:
    """An open page."""

    def __init__(self, browser: Chromium, target: str, session: str) -> None:
        self._browser = browser
        self._target, self._session = target, session

    def evaluate(self, script: str) -> Any:
        """Runs a script in the page and returns what it, or its promise, comes to. Raises BrowserError."""
        options = {"awaitPromise": True, "returnByValue": True}
        outcome = self._browser.call("Runtime.evaluate", self._session, expression=script, **options)
        if details := outcome.get("exceptionDetails"):
            raise BrowserError(str(details.get("exception", details)))
        return outcome["result"].get("value")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol for this page and returns its result. Raises BrowserError."""
        return self._browser.call(method, self._session, **parameters)

    def go(self, url: str) -> None:
        """Opens another page in this tab and waits until it is loaded."""
        # A mark on the page that is left tells it from the one that comes, which may have the same address.
        self.evaluate("document.isLeft = true")
        self.call("Page.navigate", url=url)
        eventually(self._is_loaded)

    def click(self, selector: str) -> None:
        """Clicks an element that leads to another page, and waits until that is loaded."""
        self.evaluate("document.isLeft = true")
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")
        eventually(self._is_loaded)

    def _is_loaded(self) -> bool:
        return self.is_true("document.readyState == 'complete' && !document.isLeft")

    def is_true(self, script: str) -> bool:
        """Whether a script comes to true; False while the page goes, when there is none to run it in."""
        with suppress(BrowserError):
            return bool(self.evaluate(script))
        return False

    def find_protocols(self, url: str) -> set[str]:
        """The protocols by which responses from URLs that begin so have come: `http/1.1`, `h2`, `h3`."""
        responses = [
            event["response"] for method, event in self._browser.events if method == "Network.responseReceived"
        ]
        return {response["protocol"] for response in responses if response["url"].startswith(url)}

    def close(self) -> None:
        """Closes the page, as a person does: nobody asks it, and its requests are cancelled."""
        self._browser.call("Target.closeTarget", targetId=self._target)


@contextmanager
def run_chromium(program: str, folder: Path, trusted_keys: Sequence[str], *flags: str) -> Iterator[Chromium]:
    """Starts a browser with an empty profile; certificates by these keys (SHA-256 in base64) are trusted too."""
    trust = f"--ignore-certificate-errors-spki-list={','.join(trusted_keys)}"
    command = [program, f"--user-data-dir={folder / 'profile'}", trust, *flags, *FLAGS]
    read_commands, commands = open_pipe()
    replies, write_replies = open_pipe()
    numbers = {read_commands: COMMANDS, write_replies: REPLIES}
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env={**os.environ, "HOME": str(folder)},
            close_fds=False,
            # `dup2` takes no lock that a thread could have held at the fork.
            preexec_fn=lambda: [os.dup2(descriptor, number) for descriptor, number in numbers.items()],  # noqa: PLW1509
        )
    os.close(read_commands)
    os.close(write_replies)
    browser = Chromium(process, commands, replies)
    try:
        yield browser
    finally:
        browser.close()
        os.close(commands)
        os.close(replies)


def open_pipe() -> tuple[int, int]:
    """A pipe whose descriptors are not among the first ten, which Chromium needs."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]
