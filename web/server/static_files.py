"""URLs of static files, which name their content: a browser may keep what it has got for good."""

import hashlib
from functools import cache
from pathlib import Path

from flask import Response, request

FOLDER = Path(__file__).parent.parent / "static"
URL_PREFIX = "/admin/static"
#: Seconds for which a file is kept whose URL changes with it (RFC 8246).
IMMUTABLE = "public, max-age=31536000, immutable"


@cache
def build_static_url(name: str) -> str:
    digest = hashlib.sha256((FOLDER / name).read_bytes()).hexdigest()
    return f"{URL_PREFIX}/{name}?v={digest[:16]}"


def allow_caching(response: Response) -> None:
    """Lets a browser keep a static file that was asked for by its content."""
    if request.endpoint == "static" and response.status_code in (200, 206, 304):
        name = (request.view_args or {}).get("filename", "")
        is_current = request.full_path == build_static_url(name)
        response.headers["cache-control"] = IMMUTABLE if is_current else "no-cache"
