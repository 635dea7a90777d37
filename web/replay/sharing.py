"""Decides whether a request shares its answer, and with which others."""

from dataclasses import dataclass

from shared.api_keys.api_key import ApiKey
from shared.creations.created_once import KEPT_SECONDS
from shared.protocol.messages import RelayRequest
from shared.settings.schema import PoolSettings
from web.replay.answers.answer_form import CONVERTED_PATHS, AnswerForm
from web.replay.answers.answer_store import Share
from web.replay.cache_control import CacheControl
from web.replay.idempotency_key import parse_key
from web.replay.identity import (
    DELIVERY_MEMBERS,
    STREAM_MEMBERS,
    Identity,
    digest,
    digest_body,
    identify_request,
    name_idempotency_key,
)
from web.request.body import RequestBody

BETA_HEADER = "openai-beta"


@dataclass(frozen=True)
class Sharing:
    """How a request shares its answer."""

    #: Those by which it is looked for come in this order.
    shares: tuple[Share, ...]
    #: Whether the answer is wanted although its callers have left.
    drains: bool = False
    #: What the caller asked for, None if all requests that share the answer ask for the same.
    form: AnswerForm | None = None
    #: Whether the request is not to be run.
    only_if_cached: bool = False


def find_cache_seconds(key: ApiKey, pool: PoolSettings) -> float:
    """For how long answers to the key's requests are kept for all that ask the same; 0 for not at all."""
    return pool.cache_ttl if key.cache_ttl < 0 else float(key.cache_ttl)


def is_joinable(key: ApiKey, pool: PoolSettings, body: RequestBody) -> bool:
    """Whether the request shares its answer with all that ask the same. Forms hold media; they are seldom repeated."""
    is_on = pool.join_requests or key.cache_ttl > 0 or (pool.cache_ttl and key.cache_ttl)
    return bool(is_on) and body.model_part is None


def find_sharing(
    endpoint: str,
    key: ApiKey,
    pool: PoolSettings,
    body: RequestBody,
    request: RelayRequest,
    *,
    idempotency_key: str = "",
    cache_control: str = "",
) -> Sharing | None:
    """How the request shares its answer, None for a request of its own. Raises ApiError 400.

    `request` is what is run if nothing can be shared. The last two are the caller's headers.
    """
    shares, form = [], None
    idempotency_key = parse_key(idempotency_key)
    if idempotency_key:
        shares.append(build_idempotent_share(idempotency_key, key, body, request))
    control = CacheControl()
    if is_joinable(key, pool, body):
        form, control = (
            AnswerForm(f"/{endpoint}", request.stream, not body.lacks_usage),
            CacheControl.parse(cache_control),
        )
        shares += build_common_shares(control, key, pool, body, request)
    return Sharing(tuple(shares), bool(idempotency_key), form, control.only_if_cached) if shares else None


def build_idempotent_share(idempotency_key: str, key: ApiKey, body: RequestBody, request: RelayRequest) -> Share:
    """Retries of the key's own request."""
    fingerprint = digest(request.path.encode(), encode_text(body.model), digest_body(body))
    name = name_idempotency_key(idempotency_key, key.id)
    identity = identify_request(name, idempotency_key, fingerprint)
    return Share(name, identity.key, identity.name, KEPT_SECONDS)


def build_common_shares(
    control: CacheControl, key: ApiKey, pool: PoolSettings, body: RequestBody, request: RelayRequest
) -> list[Share]:
    """All requests that ask the same, of the API key or of the pool.

    A request in the batch band uses what interactive ones have or run, but these never wait behind one of its band:
    its run is found only by requests of that band, under a name of their own.
    """
    seconds, is_read = find_cache_seconds(key, pool), control.may_use
    identity = identify(key, pool, body, request)
    common = Share(
        identity.name,
        identity.key,
        ttl=seconds if control.may_keep else 0.0,
        may_use=is_read,
        may_join=is_read and request.is_interactive,
        max_age=control.max_age,
        min_left=control.min_fresh,
    )
    if request.is_interactive:
        return [common]
    running = Identity.derive(b"batch band", identity.key)
    return [
        common,
        Share(running.name, running.key, may_use=is_read, may_join=is_read),
    ]


def identify(key: ApiKey, pool: PoolSettings, body: RequestBody, request: RelayRequest) -> Identity:
    """The identity of all requests that ask the same."""
    scope = f"key {key.id}" if pool.cache_scope == "key" else "pool"
    is_named_back = pool.map_back and body.model in pool.model_map
    # Where neither can be made of the other, a stream and a whole answer are two.
    is_converted = request.path.partition("?")[0] in CONVERTED_PATHS
    ignored = DELIVERY_MEMBERS if is_converted else DELIVERY_MEMBERS - STREAM_MEMBERS
    parts = (
        scope,
        pool.name,
        pool.upstream_url,
        request.path,
        pool.model_map.get(body.model, body.model),
        body.model if is_named_back else "",
        request.headers.get(BETA_HEADER, ""),
        # Without a usage for everybody, one that was asked for is part of the answer.
        "" if pool.count_usage else str(body.lacks_usage),
    )
    return Identity.derive(b"common", *(encode_text(part) for part in parts), digest_body(body, ignored))


def encode_text(text: str) -> bytes:
    """In UTF-8; names of models may have lone surrogates, which JSON can express."""
    return text.encode(errors="surrogatepass")
