"""`python -m tests.browser.soak [MINUTES]`: leaves live pages open for ten minutes, and tells whether they grow.

They show a farm that the command starts, under a steady load with a queue. Prints a line a minute for each page (DOM
nodes, listeners, heap after a garbage collection, updates received) and one for the front (share of a processor).
"""

import tempfile

import tests.patched  # noqa: F401  (gevent patches first)

import sys  # isort: skip
import threading  # isort: skip
import time  # isort: skip
from collections.abc import Iterator  # isort: skip
from contextlib import contextmanager  # isort: skip
from dataclasses import dataclass  # isort: skip
from pathlib import Path  # isort: skip

from tests.browser.chromium import Chromium, Tab, run_chromium  # isort: skip
from tests.browser.conftest import find_chromium  # isort: skip
from tests.browser.console_pages import enter_token  # isort: skip
from tests.browser.demo_farm import send_requests  # isort: skip
from tests.system.farm import ADMIN, KEY, Farm, start_farm  # isort: skip
from tests.upstream import start_simulator  # isort: skip

PAGES = ("/admin/", "/admin/queue")
ACCOUNTS, CLIENTS = 8, 12
#: Streams of four seconds.
PACE = ("--accounts", str(ACCOUNTS), "--rotate", "--delay", "0.4", "--chunks", "30", "--chunk-delay", "0.12")
MINUTES = 10
#: What may lie between the first minute and the last one of a page that does not grow.
SPARE_NODES, SPARE_LISTENERS, SPARE_BYTES = 200, 2, 1_000_000
#: Largest ratio of the front's CPU time in the second half to that in the first.
MAX_CPU_GROWTH = 1.25
COUNT_UPDATES = """
window.updates = 0;
document.addEventListener("htmx:sse:after:message", () => { window.updates += 1; });
"""


@dataclass(frozen=True)
class Figures:
    """A page at one moment."""

    nodes: int
    listeners: int
    heap: int
    #: Since it was opened.
    updates: int


def measure_page(tab: Tab) -> Figures:
    tab.call("HeapProfiler.collectGarbage")
    metrics = {each["name"]: int(each["value"]) for each in tab.call("Performance.getMetrics")["metrics"]}
    updates = int(tab.evaluate("window.updates"))
    return Figures(metrics["Nodes"], metrics["JSEventListeners"], metrics["JSHeapUsedSize"], updates)


@contextmanager
def run_loaded_farm(folder: Path) -> Iterator[Farm]:
    """A farm with one front, whose accounts are busy all the time."""
    simulator, upstream = start_simulator(*PACE)
    farm = start_farm(folder, upstream, ACCOUNTS, WEB_CONCURRENCY="1", FARM_WORKER_PROCESSES="1")
    has_ended = threading.Event()
    clients = [threading.Thread(target=send_requests, args=(farm, KEY, has_ended)) for _ in range(CLIENTS)]
    try:
        for client in clients:
            client.start()
        yield farm
    finally:
        has_ended.set()
        farm.command("stop")
        simulator.terminate()
        simulator.communicate()


def open_pages(browser: Chromium, farm: Farm) -> dict[str, Tab]:
    enter_token(browser.open_tab(f"{farm.url}/admin/login"), ADMIN)
    tabs = {page: browser.open_tab(f"{farm.url}{page}", in_window=True) for page in PAGES}
    for tab in tabs.values():
        tab.evaluate(COUNT_UPDATES)
        tab.call("Performance.enable")
    return tabs


def watch(browser: Chromium, farm: Farm, minutes: int) -> tuple[dict[str, list[Figures]], list[float]]:
    """Each page's figures after each minute, and the front's shares of a processor in each."""
    tabs = open_pages(browser, farm)
    (front,) = farm.processes("gunicorn")
    figures: dict[str, list[Figures]] = {page: [] for page in tabs}
    shares = []
    for minute in range(1, minutes + 1):
        began_at, cpu = time.monotonic(), sum(front.cpu_times()[:2])
        time.sleep(60)
        shares.append((sum(front.cpu_times()[:2]) - cpu) / (time.monotonic() - began_at))
        print(f"{minute:3} front         {shares[-1]:6.1%} of a processor", flush=True)
        for page, tab in tabs.items():
            now = measure_page(tab)
            figures[page].append(now)
            print(
                f"{minute:3} {page:13} {now.nodes:6} nodes {now.listeners:4} listeners"
                f" {now.heap / 1e6:6.2f} MB {now.updates:5} updates",
                flush=True,
            )
        browser.events.clear()
    return figures, shares


def find_growth(figures: dict[str, list[Figures]], shares: list[float]) -> list[str]:
    """What has grown from the first minute to the last, and pages that have not been updated."""
    found = []
    for page, (first, *_, last) in figures.items():
        spare = {"nodes": SPARE_NODES, "listeners": SPARE_LISTENERS, "heap": SPARE_BYTES}
        for name, most in spare.items():
            if (growth := getattr(last, name) - getattr(first, name)) > most:
                found.append(f"{page}: {name} by {growth}")
        if last.updates <= first.updates:
            found.append(f"{page}: no updates")
    half = len(shares) // 2
    ratio = sum(shares[-half:]) / sum(shares[:half])
    return found if ratio <= MAX_CPU_GROWTH else [*found, f"the front's CPU time: {ratio:.2f} times"]


def main() -> int:
    minutes = int(sys.argv[1]) if len(sys.argv) > 1 else MINUTES
    with (
        tempfile.TemporaryDirectory() as data,
        run_loaded_farm(Path(data) / "farm") as farm,
        run_chromium(find_chromium(), Path(data), ()) as browser,
    ):
        found = find_growth(*watch(browser, farm, max(2, minutes)))
    print("\n".join(f"grown: {each}" for each in found) or "nothing has grown")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
