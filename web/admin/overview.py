"""Pools, what runs now, usage, the request log, the audit log and admin tokens by the admin API."""

import time

from flask import Response

from shared import keys
from shared.errors import ApiError, Conflict, NotFound
from shared.observability.pool_status import read_pools
from shared.observability.request_log import COLUMNS, Filter, RequestLog
from shared.observability.usage import METRICS, Question, UsageSums
from shared.settings.schema import PoolSettings, described
from web.admin.api import contract
from web.admin.openapi import answered
from web.admin.pagination import CSV, JSONL, exported, note, stream_page
from web.admin.schemas import (
    AdminTokenList,
    AuditPage,
    Live,
    LivePool,
    LogPage,
    LogQuery,
    MadeAdminToken,
    NewAdminToken,
    Page,
    Pool,
    PoolList,
    UsageAnswer,
    UsageQuery,
)
from web.services import parts

DAY = 86_400
#: Most entries of the request log in one export.
MOST_EXPORTED = 1_000_000


# Pools, live state


@contract.route("GET", "/pools", answer=PoolList)
def list_pools() -> PoolList:
    """Every pool as configured."""
    return PoolList(data=[shown_pool(pool) for pool in parts().pools])


@contract.route("GET", "/pools/<name>", answer=Pool)
def get_pool(name: str) -> Pool:
    """One pool as configured."""
    for pool in parts().pools:
        if pool.name == name:
            return shown_pool(pool)
    raise ApiError(404, "not_found", f"no pool {name[:100]!r}")


def shown_pool(pool: PoolSettings) -> Pool:
    """A pool as the API gives it."""
    return Pool(name=pool.name, settings=described(pool))


@contract.route("GET", "/live", answer=Live)
def live() -> Live:
    """What runs now: workers, queues, utilisation, drain rate."""
    farm = parts()
    states = read_pools(farm.redis, [pool.name for pool in farm.pools])
    pools = [LivePool(**state.as_dict(), drain_rate=farm.drain_rate.rate(state.name)) for state in states]
    recent = time.time() - 10
    return Live(
        pools=pools,
        worker_processes=farm.redis.zcount(keys.PROCESSES, recent, "+inf"),
        web_processes=farm.redis.zcount(keys.FRONTS, recent, "+inf"),
    )


# Usage and log


@contract.route("GET", "/usage", query=UsageQuery, answer=UsageAnswer, errors=(409,), media=(CSV, JSONL))
def usage(query: UsageQuery) -> Response:
    """What was used, added up by what is asked."""
    by = tuple(name for name in query.by.split(",") if name)
    only = {name: value for name in ("key", "pool", "model", "credential") if (value := getattr(query, name))}
    if "credential" in (*by, *only) and {"key", "model"} & {*by, *only}:
        raise ApiError(409, "conflict", "sums are kept by credential, or by key and model", param="by")
    until = time.time() if query.until is None else query.until
    since = until - DAY if query.since is None else query.since
    rows = UsageSums(parts().redis).rows(Question(since, until, query.step, tuple(dict.fromkeys(by)), only))
    if query.format != "json":
        return exported(rows, (*dict.fromkeys(by), *METRICS, "total_tokens"), query.format)
    return answered(UsageAnswer(data=rows), 200)


@contract.route("GET", "/logs", query=LogQuery, answer=LogPage, errors=(404,), media=(CSV, JSONL))
def logs(query: LogQuery) -> Response:
    """The request log, newest first: no prompt, no answer."""
    names = ("request", "key", "pool", "model", "credential", "endpoint", "code", "outcome")
    until = float("inf") if query.until is None else query.until
    wanted = Filter(query.since or 0.0, until, **{name: getattr(query, name) for name in names})
    found = RequestLog(parts().redis).newest_first(wanted, entry_id(query.cursor))
    if query.format != "json":
        rows = (one.as_dict() for one, _ in zip(found, range(MOST_EXPORTED), strict=False))
        return exported(rows, COLUMNS, query.format)
    taken, more = stream_page(found, query.limit)
    return answered(LogPage(data=[one.as_dict() for one in taken], next=taken[-1].id if more else None), 200)


def entry_id(cursor: str) -> str:
    """A cursor that is the id of an entry of a stream. Raises ApiError 404."""
    head, _, tail = cursor.partition("-")
    if cursor and not (cursor.isascii() and head.isdigit() and tail.isdigit() and max(len(head), len(tail)) < 19):
        raise ApiError(404, "not_found", "there is no such cursor", param="cursor")
    return cursor


# Admin tokens, audit


@contract.route("GET", "/admin-tokens", answer=AdminTokenList)
def list_admin_tokens() -> AdminTokenList:
    """Every admin token."""
    return AdminTokenList(data=parts().admin_tokens.list())


@contract.route("POST", "/admin-tokens", body=NewAdminToken, answer=MadeAdminToken, status=201)
def create_admin_token(body: NewAdminToken) -> MadeAdminToken:
    """Make an admin token; the secret is told this once."""
    secret, made = parts().admin_tokens.create(body.name, body.role)
    note("token.create", made.id, body.model_dump())
    return MadeAdminToken(**made.model_dump(), token=secret)


@contract.route("DELETE", "/admin-tokens/<token_id>", status=204, errors=(409,))
def revoke_admin_token(token_id: str) -> None:
    """Revoke an admin token and the sessions that it has opened."""
    try:
        parts().admin_tokens.revoke(token_id)
    except NotFound as error:
        raise ApiError(404, "not_found", str(error)) from None
    except Conflict as error:
        raise ApiError(409, "conflict", str(error)) from None
    note("token.revoke", token_id)


@contract.route("GET", "/audit", query=Page, answer=AuditPage, errors=(404,))
def audit(query: Page) -> AuditPage:
    """What operators have changed, newest first."""
    taken, more = stream_page(parts().audit.newest_first(entry_id(query.cursor)), query.limit)
    return AuditPage(data=taken, next=taken[-1].id if more else None)
