"""Tells the farm's own pages from callers' paths, and how either may be spelled.

A base URL that ends in a slash gives `/v1//chat/completions`, so slashes of callers' paths are collapsed, and what else
programs make of a base URL is understood (endpoint_paths.py). The farm's own pages have one spelling: `//admin` or
`/%61dmin` must not get past a proxy's rule for `/admin`.
"""

import re
from collections.abc import Iterable
from urllib.parse import quote, urlsplit
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from web.server.endpoint_paths import EndpointPaths

#: WSGI: the model that a path names (bytes as latin-1, like PATH_INFO), absent if none.
PATH_MODEL = "farm.path_model"
#: First segments of the paths of the farm's own pages: console, monitoring.
OWN_PAGES = frozenset({"admin", "api", "healthz", "metrics", "readyz"})
SEGMENT_END = re.compile(r"[/?#]")


def is_own_page(path: str) -> bool:
    """Whether the path belongs to operators and monitoring; all others are callers' and get CORS headers."""
    return find_first_segment(path) in OWN_PAGES


def find_first_segment(path: str) -> str:
    return SEGMENT_END.split(path.removeprefix("/"), maxsplit=1)[0]


def normalize_path(wsgi_app: WSGIApplication, endpoint_paths: EndpointPaths) -> WSGIApplication:
    """Gives callers' paths the farm's own spelling; turns other spellings of its own pages into unknown URLs."""

    def call_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        collapsed = re.sub("//+", "/", path) if "//" in path else path
        if not is_own_page(collapsed):
            environ["PATH_INFO"], model = endpoint_paths.resolve(collapsed)
            if model:
                environ[PATH_MODEL] = model
        elif collapsed != path or not is_own_page(find_sent_path(environ)):
            # Escaped, because werkzeug drops leading slashes.
            environ["PATH_INFO"] = "/" + quote(path, safe="")
        return wsgi_app(environ, start_response)

    return call_app


def find_sent_path(environ: WSGIEnvironment) -> str:
    """The path before percent-decoding, without the scheme and host of an absolute URL (RFC 9112 section 3.2.2)."""
    uri = str(environ.get("RAW_URI", environ["PATH_INFO"]))
    return uri if uri.startswith("/") else urlsplit(uri).path
