"""50 streams at once of a page of another origin, through the farm's own HTTPS endpoint."""

import codecs
import json
from collections.abc import Callable

import pytest

from tests.browser.conftest import ACCOUNTS
from tests.browser.page import Page
from tests.system.farm import Farm
from tests.waiting import eventually

TEXTS = [f"stream number {number} of the page" for number in range(ACCOUNTS)]
#: Seconds between two pieces of a response: whatever waits for the second one waits for ever.
NEVER = 600


@pytest.mark.parametrize("protocol", ["h2", "h3"])
def test_page_keeps_every_account_busy_and_frees_what_it_cancels(
    farm: Farm, open_page: Callable[[str], Page], protocol: str
):
    """Cancelling is RST_STREAM in HTTP/2 (RFC 9113 section 6.4) and STOP_SENDING in HTTP/3 (RFC 9114 section 4.1.1)."""
    farm.upstream.pace(chunks=3, chunk_delay=NEVER)
    page = open_page(protocol)
    page.send(*TEXTS, stream=True)

    # Each first piece arrives although its stream sends nothing more.
    eventually(lambda: len(page.find_streaming()) == ACCOUNTS)
    assert farm.upstream.counters()["in_flight"] == ACCOUNTS
    assert page.tab.find_protocols(farm.url) == {protocol}

    page.abort(7)
    eventually(lambda: farm.upstream.counters()["in_flight"] == ACCOUNTS - 1)
    page.send("the next one", stream=True)
    eventually(lambda: page.find_streaming() == [*range(7), *range(8, ACCOUNTS + 1)])

    page.tab.close()
    eventually(lambda: farm.upstream.counters()["in_flight"] == 0)
    eventually(lambda: farm.live_pool()["workers"]["idle"] == ACCOUNTS)


def test_page_has_six_connections_without_http2(farm: Farm, open_page: Callable[[str], Page]):
    farm.upstream.pace(chunks=3, chunk_delay=NEVER)
    page = open_page("http/1.1")
    page.send(*TEXTS, stream=True)
    eventually(lambda: len(page.find_streaming()) == 6)
    assert farm.upstream.counters()["in_flight"] == 6

    page.tab.close()
    eventually(lambda: farm.upstream.counters()["in_flight"] == 0)


def test_page_reads_whole_streams_replies_and_errors(farm: Farm, open_page: Callable[[str], Page]):
    farm.upstream.pace(chunks=5, chunk_delay=0.05)
    page = open_page("h2")
    page.send(*TEXTS, stream=True)
    page.send("all at once")
    page.send("with a wrong key", key="sk-wrong")
    eventually(page.are_ended)

    *streams, whole, refused = page.report()
    assert [read_stream(sent["text"]) for sent in streams] == [codecs.encode(text, "rot13") for text in TEXTS]
    assert json.loads(whole["text"])["choices"][0]["message"]["content"] == codecs.encode("all at once", "rot13")
    assert (refused["status"], json.loads(refused["text"])["error"]["code"]) == (401, "invalid_api_key")


def read_stream(text: str) -> str:
    """The text of a stream's events, which must be complete."""
    events = [event.removeprefix("data: ") for event in text.split("\n\n") if event.startswith("data: ")]
    assert events[-1] == "[DONE]"
    deltas = [choice["delta"] for event in events[:-1] for choice in json.loads(event)["choices"]]
    return "".join(delta.get("content", "") for delta in deltas)
