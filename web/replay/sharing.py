"""Decides whether a request shares its answer, and with which others."""

from collections.abc import Mapping
from typing import Any

from shared.api_keys.api_key import ApiKey
from shared.settings.schema import PoolSettings
from web.replay.answer_store import Share
from web.replay.idempotency_key import parse_key
from web.replay.identity import Identity, digest, digest_body
from web.replay.runs import Sharing
from web.request.body import RequestBody

#: Seconds for which the answer to a request with an idempotency key is kept.
IDEMPOTENCY_SECONDS = 600.0
IDEMPOTENCY_HEADER = "HTTP_IDEMPOTENCY_KEY"


def find_sharing(
    environ: Mapping[str, Any], endpoint: str, key: ApiKey, pool: PoolSettings, body: RequestBody, query: str
) -> Sharing | None:
    """How the request shares its answer, None for a request of its own. Raises ApiError 400."""
    shares = []
    idempotency_key = parse_key(environ.get(IDEMPOTENCY_HEADER, ""))
    if idempotency_key:
        shares.append(build_idempotent_share(idempotency_key, endpoint, key, body, query))
    return Sharing(tuple(shares), drains=bool(idempotency_key)) if shares else None


def build_idempotent_share(idempotency_key: str, endpoint: str, key: ApiKey, body: RequestBody, query: str) -> Share:
    """Retries of the key's own request."""
    request = digest(endpoint.encode(), body.model.encode(), query.encode(), digest_body(body))
    name = Identity.derive(b"idempotency", key.id.encode(), idempotency_key.encode()).name
    print_ = Identity.derive(b"idempotency print", name.encode(), request)
    return Share(name, print_.key, print_.name, IDEMPOTENCY_SECONDS)
