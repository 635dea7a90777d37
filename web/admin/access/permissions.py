"""What an admin token's role may do, by the view that serves the request.

The RQ dashboard is another project's code: each of its views is listed here as reading or changing, and one that a new
version brings is refused to viewers until it is.
"""

from flask import request

from shared.api_keys.admin_tokens import AdminToken
from shared.errors import ApiError

#: Methods that change nothing.
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
DASHBOARD = "rq_dashboard"
#: The dashboard's views that only read.
READING_VIEWS = frozenset(
    f"{DASHBOARD}.{view}"
    for view in (
        *("queues_overview", "workers_overview", "jobs_overview", "job_view"),
        *("list_queues", "list_workers", "list_jobs", "job_info"),
        *("static", "favicon"),
    )
)
#: The dashboard's views that change something; it offers one of them by GET too.
CHANGING_VIEWS = frozenset(
    f"{DASHBOARD}.{view}"
    for view in ("delete_job_view", "requeue_job_view", "requeue_all", "empty_queue", "compact_queue")
)
LOGOUT_VIEW = "admin.logout"
#: Streams what live pages show.
LIVE_VIEW = "console.live"
#: Views outside of the dashboard that a viewer may use; of the admin API and the console, every GET but ADMIN_VIEWS.
VIEWER_VIEWS = frozenset({"admin.login_page", "static", LOGOUT_VIEW})
ADMIN_API, CONSOLE = "admin_api", "console"
#: Pages that only administrators may open, although they are GETs.
ADMIN_VIEWS = frozenset({"console.playground"})


def check_permission(token: AdminToken) -> None:
    """Raises ApiError 403 if the role doesn't permit this request, 405 if it would change something by GET."""
    if request.endpoint is None:
        return
    if token.role != "admin" and not may_view():
        raise ApiError(403, "forbidden", "this admin token may read everything but change nothing")
    if request.blueprint == DASHBOARD and request.method in SAFE_METHODS and request.endpoint not in READING_VIEWS:
        raise ApiError(405, "method_not_allowed", "this changes something: use POST", headers={"allow": "POST"})


def may_view() -> bool:
    """Whether a viewer may make this request."""
    if request.blueprint in (ADMIN_API, CONSOLE):
        return request.method in SAFE_METHODS and request.endpoint not in ADMIN_VIEWS
    return request.endpoint in READING_VIEWS or request.endpoint in VIEWER_VIEWS
