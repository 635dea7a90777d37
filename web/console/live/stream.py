"""The stream of a live page, over which its part that changes is sent again and again."""

import re
from collections.abc import Callable, Iterator

from flask import Response, g, request
from redis.exceptions import RedisError

from shared.errors import ApiError
from shared.protocol.sse import KEEP_ALIVE_COMMENT
from web.admin.access.gate import LOGGED_OUT, build_admission_check
from web.admin.access.permissions import LIVE_VIEW
from web.console.live.fragments import LIVE_PAGES, SETTLED, Topic
from web.console.parts.blueprint import blueprint
from web.console.parts.lists import read_choice, read_text
from web.languages.translation import get_language
from web.live_feed import Viewer
from web.request.rendering import EVENT_STREAM, STREAM_HEADERS
from web.server.disconnect import DisconnectWatcher
from web.services import services

#: Seconds between two updates that readers can choose from, the first without a choice; '0' for none.
INTERVALS = ("1", "5", "0")
#: Ids, but no other keys of Redis: what one viewer watches must not keep the others from their snapshots.
SUBJECT = re.compile(r"[A-Za-z0-9_-]*")
COOKIE, COOKIE_SECONDS = "farm_every", 400 * 86_400
#: Seconds without a message after which a comment is sent, so that proxies keep the connection.
PING_SECONDS = 10.0
#: Milliseconds after which a page asks again that got no stream of its own.
POLL = b"retry: 5000\n"
HEADERS = {**STREAM_HEADERS, "content-type": EVENT_STREAM, "cache-control": "no-store"}


def read_interval() -> str:
    """The interval that the reader has chosen: now, by a link, or before."""
    return read_choice("every", INTERVALS) or chosen_before()


def chosen_before() -> str:
    kept = request.cookies.get(COOKIE, "")
    return kept if kept in INTERVALS else INTERVALS[0]


@blueprint.after_request
def keep_interval(response: Response) -> Response:
    """Keeps an interval that was chosen by a link of a page."""
    if request.endpoint != LIVE_VIEW and (every := read_choice("every", INTERVALS)):
        response.set_cookie(COOKIE, every, COOKIE_SECONDS, path="/admin", samesite="Lax", httponly=True)
    return response


@blueprint.get("/live")
def live() -> Response:
    """Streams the live part of `?page=`, which is of `?subject=`, every `?every=` seconds.

    When the front has enough viewers, the stream ends after one message, and the page asks again in a while.
    """
    page, subject = read_text("page"), read_text("subject")
    if page not in LIVE_PAGES or not SUBJECT.fullmatch(subject):
        raise ApiError(404, "not_found", "this page has no live part", param="page")
    feed = services().live_feed
    is_single = feed.is_full
    viewer = feed.watch(Topic(page, get_language().code, g.admin.role, subject), int(read_interval()) or 1)
    watcher = DisconnectWatcher(request.environ.get("gunicorn.socket"), viewer.end)
    messages = send_one(viewer) if is_single else send_all(viewer, build_admission_check())
    response = Response(messages, headers=HEADERS)
    response.call_on_close(watcher.stop)
    response.call_on_close(viewer.end)
    return response


def send_one(viewer: Viewer[Topic]) -> Iterator[bytes]:
    yield POLL + (viewer.wait(PING_SECONDS) or KEEP_ALIVE_COMMENT)


def send_all(viewer: Viewer[Topic], is_admitted: Callable[[], bool]) -> Iterator[bytes]:
    """Until the caller leaves, the front retires, what is shown will change no more, or the session ends.

    In the last case the page is told to log in again.
    """
    while not viewer.has_ended:
        message = viewer.wait(PING_SECONDS)
        try:
            if not is_admitted():
                yield LOGGED_OUT
                return
        except RedisError:
            return
        if message or not viewer.has_ended:
            yield message or KEEP_ALIVE_COMMENT
        if message.endswith(SETTLED):
            return
