"""Records logins, logouts and refusals in the audit log, the log and the metrics.

Anyone can provoke refusals, so only the first of each hour reach the audit log: a flood must not push operators'
changes out of it. No record contains a token.
"""

import logging

from flask import g, request

from shared import keys
from shared.api_keys import admin_login
from shared.api_keys.admin_login import TokenCheck
from shared.api_keys.admin_sessions import AdminSession
from shared.errors import ApiError
from web.services import services

log = logging.getLogger("farm.web")
#: Refusals that are written to the audit log per hour.
MAX_REFUSALS_PER_HOUR = 20


def find_address() -> str:
    return services().trusted_proxies.find_caller_address(request) or "?"


def record_login(session: AdminSession) -> None:
    details = {"address": session.address, "role": session.role}
    services().audit_log.record(f"token {session.token_id}", "login", session.id, details)


def record_logout(session: AdminSession) -> None:
    services().audit_log.record(f"token {session.token_id}", "logout", session.id)


def record_check(check: TokenCheck) -> None:
    """Records the outcome of a token check: of wrong ones the first of a network, and what starts a ban."""
    outcome = "right" if check.token else "banned" if check.banned_for else "wrong"
    services().counters.increment("admin_token_checks", outcome)
    if outcome != "wrong":
        return
    address = find_address()
    log.warning("wrong admin token from %s", address, extra={"action": "admin_refused", "reason": "wrong_token"})
    if check.wrong_tokens == 1:
        record_refusal("login.refuse", address)
    if check.wrong_tokens == admin_login.MAX_WRONG_TOKENS:
        record_refusal("login.ban", address)
    if check.wrong_tokens_in_all == admin_login.MAX_WRONG_TOKENS_IN_ALL:
        record_refusal("login.ban", "all unknown addresses")


def record_forbidden(error: ApiError) -> None:
    """Records that a role or an origin was refused."""
    holder = g.get("admin_session") or g.get("admin")
    token_id = getattr(holder, "token_id", None) or getattr(holder, "id", "")
    details = {"code": error.code, "address": find_address(), "view": request.endpoint or ""}
    if record_refusal("request.refuse", f"token {token_id}" if token_id else "", details):
        log.warning("refused at /admin: %s", error.code, extra={"action": "admin_refused", "reason": error.code})


def record_refusal(action: str, target: str, details: dict[str, str] | None = None) -> bool:
    """Returns whether this was one of the first of the hour, and recorded."""
    web_services = services()
    count = int(web_services.redis.incr(keys.LOGGED_REFUSALS))
    if count == 1:
        web_services.redis.expire(keys.LOGGED_REFUSALS, 3600)
    if count > MAX_REFUSALS_PER_HOUR:
        return False
    web_services.audit_log.record(f"address {find_address()}", action, target, details)
    return True
