"""The page that calls the farm, as the tests use it."""

import json
from dataclasses import dataclass
from typing import Any

from tests.browser.chromium import Tab
from tests.system.farm import KEY, Farm, chat_body


@dataclass
class Page:
    """page.html in a tab; its requests have numbers from 0 on."""

    tab: Tab
    farm: Farm

    def send(self, *texts: str, key: str = KEY, **fields: Any) -> None:
        """Sends a chat request for each text, all at once."""
        url = f"{self.farm.url}/v1/chat/completions"
        bodies = [chat_body(text, **fields) for text in texts]
        script = f"{json.dumps(bodies)}.forEach(body => void send({json.dumps(url)}, {json.dumps(key)}, body))"
        self.tab.evaluate(script)

    def abort(self, number: int) -> None:
        """Cancels one request, as a program in the page does (`AbortController`)."""
        self.tab.evaluate(f"requests[{number}].controller.abort()")

    def report(self) -> list[dict[str, Any]]:
        """Of each request `status`, `pieces`, `text`, `ended` and `error`."""
        return list(self.tab.evaluate("report()"))

    def find_streaming(self) -> list[int]:
        """The numbers of the requests that have received a piece and have not ended."""
        return [number for number, sent in enumerate(self.report()) if sent["pieces"] and not sent["ended"]]

    def are_ended(self) -> bool:
        return all(sent["ended"] for sent in self.report())
