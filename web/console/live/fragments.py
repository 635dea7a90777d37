"""What live pages show of the moment: read once a second for all viewers, rendered once per language and role."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

from flask import Flask, g, render_template

from shared.languages.catalogues import load_languages
from shared.protocol.sse import encode_event


class Topic(NamedTuple):
    """What a viewer watches: all viewers of the same get the same bytes."""

    page: str
    language: str
    role: str


@dataclass(frozen=True)
class Reader:
    """The role by which a template decides what it shows."""

    role: str


@dataclass(frozen=True)
class LivePage:
    """The live part of a page."""

    template: str
    read: Callable[[], dict[str, Any]]
    #: Events beside the rendered template: name -> data, without line breaks.
    read_events: Callable[[], dict[str, str]] = dict


#: Endpoint -> its live part; each page registers its own.
LIVE_PAGES: dict[str, LivePage] = {}


def render_topics(app: Flask, topics: Collection[Topic]) -> dict[Topic, bytes]:
    """Renders messages for the topics. Raises RedisError."""
    messages: dict[Topic, bytes] = {}
    for page in sorted({topic.page for topic in topics}):
        live_page = LIVE_PAGES[page]
        with app.test_request_context("/admin/"):
            values = live_page.read()
            events = "".join(encode_event(data, name) for name, data in live_page.read_events().items())
        for topic in (topic for topic in topics if topic.page == page):
            with app.test_request_context("/admin/"):
                g.admin, g.language = Reader(topic.role), load_languages()[topic.language]
                text = render_template(f"console/{live_page.template}", **values)
            messages[topic] = (events + encode_event(text)).encode()
    return messages
