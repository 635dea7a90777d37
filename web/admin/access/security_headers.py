"""Headers that tell browsers what the pages at /admin may do: nothing that they don't need."""

from flask import Response, request

from web.admin.access.permissions import DASHBOARD
from web.admin.access.session_cookie import is_behind_tls
from web.server.static_files import allow_caching

#: Only files of the farm itself; no inline script or style, no eval (CSP Level 3).
CONTENT_SECURITY_POLICY = "; ".join(
    (
        *("default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "font-src 'self'"),
        *("connect-src 'self'", "form-action 'self'", "base-uri 'none'", "object-src 'none'", "frame-ancestors 'none'"),
    )
)
#: What the RQ dashboard needs besides: inline scripts, styles and images, and it compiles templates in the browser.
DASHBOARD_SOURCES = {
    "script-src": "'unsafe-inline' 'unsafe-eval'",
    "style-src": "'unsafe-inline'",
    "img-src": "data:",
}
DASHBOARD_POLICY = CONTENT_SECURITY_POLICY
for directive, sources in DASHBOARD_SOURCES.items():
    DASHBOARD_POLICY = DASHBOARD_POLICY.replace(f"{directive} 'self'", f"{directive} 'self' {sources}")
HEADERS = {
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
#: Over TLS: plain HTTP is not tried again for a year (RFC 6797).
STRICT_TRANSPORT = "max-age=31536000"


def add_security_headers(response: Response) -> None:
    """Forbids caching of what is behind the login, and framing, sniffing and foreign content of all pages."""
    headers = response.headers
    allow_caching(response)
    headers.setdefault("cache-control", "no-store")
    headers.setdefault("referrer-policy", "same-origin")
    headers.setdefault(
        "content-security-policy", DASHBOARD_POLICY if request.blueprint == DASHBOARD else CONTENT_SECURITY_POLICY
    )
    headers.update(HEADERS)
    if is_behind_tls():
        headers.setdefault("strict-transport-security", STRICT_TRANSPORT)
