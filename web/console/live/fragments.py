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
    #: Id of what the page is of, '' for a page that is of no one thing.
    subject: str = ""


@dataclass(frozen=True)
class Reader:
    """The role by which a template decides what it shows."""

    role: str


@dataclass(frozen=True)
class LivePage:
    """The live part of a page."""

    template: str
    #: Called with the subject of the topic.
    read: Callable[[str], dict[str, Any]]
    #: Events beside the rendered template: name -> data, without line breaks.
    read_events: Callable[[], dict[str, str]] = dict
    #: Whether what was read changes no more, so that the stream ends with it.
    is_final: Callable[[dict[str, Any]], bool] = lambda _: False


#: Endpoint -> its live part; each page registers its own.
LIVE_PAGES: dict[str, LivePage] = {}
#: Ends the last message of a stream: the page asks for no other.
SETTLED = encode_event("page", "settled").encode()


def render_topics(app: Flask, topics: Collection[Topic]) -> dict[Topic, bytes]:
    """Renders messages for the topics. Raises RedisError."""
    messages: dict[Topic, bytes] = {}
    for page, subject in sorted({(topic.page, topic.subject) for topic in topics}):
        live_page = LIVE_PAGES[page]
        with app.test_request_context("/admin/"):
            values = live_page.read(subject)
            events = "".join(encode_event(data, name) for name, data in live_page.read_events().items())
        end = SETTLED if live_page.is_final(values) else b""
        for topic in (topic for topic in topics if (topic.page, topic.subject) == (page, subject)):
            with app.test_request_context("/admin/"):
                g.admin, g.language = Reader(topic.role), load_languages()[topic.language]
                text = render_template(f"console/{live_page.template}", **values)
            messages[topic] = (events + encode_event(text)).encode() + end
    return messages
