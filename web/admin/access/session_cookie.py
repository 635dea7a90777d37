"""The cookie that holds a login session's secret.

`SameSite=Strict`: no other site has a reason to open the console, so none gets the cookie sent; a link from elsewhere
leads to the login page. Behind TLS the cookie has the `__Host-` prefix (RFC 6265bis section 4.1.3.2): neither plain
HTTP nor another host of the domain can set it.
"""

from flask import request
from werkzeug.wrappers import Response

from shared.api_keys.admin_sessions import MAX_AGE_SECONDS
from web.services import services

PLAIN_NAME, SECURE_NAME = "farm_admin", "__Host-farm_admin"
#: `__Host-` demands the path `/`.
PATHS = {PLAIN_NAME: "/admin", SECURE_NAME: "/"}


def is_behind_tls() -> bool:
    return services().trusted_proxies.is_https(request)


def read_secret() -> str:
    """The session's secret, '' without one. Behind TLS a cookie that plain HTTP could have set is ignored."""
    return request.cookies.get(SECURE_NAME if is_behind_tls() else PLAIN_NAME, "")


def set_secret(response: Response, secret: str) -> None:
    name = SECURE_NAME if is_behind_tls() else PLAIN_NAME
    response.set_cookie(
        name,
        secret,
        max_age=MAX_AGE_SECONDS,
        path=PATHS[name],
        secure=name == SECURE_NAME,
        httponly=True,
        samesite="Strict",
    )


def delete_secret(response: Response) -> None:
    name = SECURE_NAME if is_behind_tls() else PLAIN_NAME
    response.delete_cookie(name, path=PATHS[name], secure=name == SECURE_NAME, httponly=True, samesite="Strict")
