"""When each page of the console can be used in Chromium."""

import shutil
import statistics
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.console.front import ADMIN_TOKEN, SCENARIO, Front, hide_id
from bench.measurement import Measurement, at_most
from tests.browser.chromium import Tab, run_chromium

PROGRAM = "chromium"
#: Loads of a page, each with an empty cache.
LOADS = 3
#: Longest time until a page is interactive, in milliseconds.
MAX_INTERACTIVE_MS = 1000.0
#: Milliseconds, from the start of the navigation, until the load event and the last long task have ended. A task is
#: long above 50 ms (W3C Long Tasks); the last one is that which none follows for half a second.
FIND_INTERACTIVE = """new Promise((resolve) => {
  let end = performance.getEntriesByType("navigation")[0].loadEventEnd;
  new PerformanceObserver((list) => {
    for (const task of list.getEntries()) end = Math.max(end, task.startTime + task.duration);
  }).observe({ type: "longtask", buffered: true });
  const look = () => (performance.now() > end + 500 ? resolve(end) : setTimeout(look, 50));
  setTimeout(look, 50);
})"""


def measure_interactive(front: Front, folder: Path, paths: Iterable[str]) -> list[Measurement]:
    """Medians of several loads. Nothing without Chromium."""
    if not shutil.which(PROGRAM):
        print(f"farm: {PROGRAM} is not installed, so that no page is loaded in a browser", file=sys.stderr)
        return []
    with open_tab(folder) as tab:
        return [measure_page(front, tab, path) for path in paths]


@contextmanager
def open_tab(folder: Path) -> Iterator[Tab]:
    """A tab that is logged in by its requests' header, and keeps no file."""
    with run_chromium(str(shutil.which(PROGRAM)), folder, (), "--window-size=1440,900") as browser:
        tab = browser.open_tab("about:blank")
        tab.call("Network.setExtraHTTPHeaders", headers={"authorization": f"Bearer {ADMIN_TOKEN}"})
        tab.call("Network.setCacheDisabled", cacheDisabled=True)
        yield tab


def measure_page(front: Front, tab: Tab, path: str) -> Measurement:
    front.load(path)
    times = []
    for _ in range(LOADS):
        tab.go(front.url + path)
        times.append(float(tab.evaluate(FIND_INTERACTIVE)))
    name = f"{hide_id(path)}: ms until it is interactive, median"
    return at_most(SCENARIO, name, round(statistics.median(times)), MAX_INTERACTIVE_MS)
