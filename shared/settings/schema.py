"""The farm's settings as one frozen object, each with its unit, its default and its meaning; it reads nothing."""

import os
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any

from shared import names
from shared.settings.parsers import (
    Parser,
    choice_parser,
    int_parser,
    parse_bool,
    parse_days,
    parse_mapping,
    parse_names,
    parse_networks,
    parse_optional_seconds,
    parse_seconds,
    parse_text,
    parse_url,
)


def setting(env: str, read: Parser, default: Any, help_: str, *, secret: bool = False) -> Any:
    """A field of Settings or PoolSettings: its environment name, its reader, its default and its meaning."""
    meta = {"env": env, "read": read, "help": help_, "secret": secret}
    factory = {"default_factory": lambda: default} if isinstance(default, dict) else {"default": default}
    return field(metadata=meta, repr=not secret, **factory)


def pool_setting(read: Parser, default: Any, help_: str) -> Any:
    """A field of PoolSettings that only `farm.toml` gives."""
    return setting("", read, default, help_)


@dataclass(frozen=True)
class PoolSettings:
    """One upstream, its token endpoint and its models."""

    #: Name of the pool; the FARM_ variables speak of the pool `default`.
    name: str = "default"
    upstream_url: str = setting(
        "FARM_UPSTREAM_URL",
        parse_url,
        "",
        "base URL of the upstream, ending in /v1; unset: `./farm up` starts the bundled simulator",
    )
    token_url: str = setting("FARM_TOKEN_URL", parse_url, "", "OAuth 2 token endpoint that takes the refresh tokens")
    token_request: str = setting(
        "FARM_TOKEN_REQUEST",
        choice_parser("form", "json", "bearer"),
        "form",
        "how the token endpoint is asked: `form` (RFC 6749), `json`, or `bearer` (no body, token in the header)",
    )
    client_id: str = setting("FARM_CLIENT_ID", parse_text, "", "OAuth client id, if the token endpoint wants one")
    client_secret: str = setting("FARM_CLIENT_SECRET", parse_text, "", "OAuth client secret", secret=True)
    revocation_url: str = setting(
        "FARM_REVOCATION_URL", parse_url, "", "where refresh tokens are revoked (RFC 7009), if the upstream can do that"
    )
    scope: str = setting("FARM_SCOPE", parse_text, "", "OAuth scope to ask for")
    refresh_tokens_file: str = setting(
        "FARM_REFRESH_TOKENS_FILE", parse_text, "", "file of refresh tokens, one per line, imported at start"
    )
    models: tuple[str, ...] = setting(
        "FARM_MODELS",
        parse_names,
        (),
        "models served, separated by commas; empty: every name is accepted, the upstream is asked for the list",
    )
    model_map: Mapping[str, str] = setting(
        "FARM_MODEL_MAP", parse_mapping, {}, "JSON object: requested model name -> the upstream's name"
    )
    map_back: bool = setting(
        "FARM_MAP_BACK",
        parse_bool,
        False,
        "whether answers name the model as the caller did, where FARM_MODEL_MAP changed it",
    )
    priority: int = pool_setting(
        int_parser(0), 0, "of the pools that serve a model, those of the least number go first"
    )
    weight: float = pool_setting(parse_seconds, 1.0, "share of the requests among pools of the same priority")
    overflow_wait: float = pool_setting(
        parse_optional_seconds, 0.0, "seconds of expected waiting above which requests go to the next pool; 0: never"
    )
    proxy: str = setting(
        "FARM_UPSTREAM_PROXY", parse_url, "", "HTTP proxy for upstream and token endpoint", secret=True
    )
    ca_bundle: str = setting("FARM_CA_BUNDLE", parse_text, "", "file of the CA certificates to trust, if not the usual")
    headers: Mapping[str, str] = setting(
        "FARM_UPSTREAM_HEADERS",
        parse_mapping,
        {},
        "JSON object: headers that upstream requests have besides",
        secret=True,
    )
    slots: int = setting("FARM_SLOTS", int_parser(1, 100), 1, "requests that one account may have in flight at once")
    connect_timeout: float = pool_setting(
        parse_optional_seconds, 0.0, "as FARM_CONNECT_TIMEOUT, for this pool; 0: as that"
    )
    first_byte_timeout: float = pool_setting(parse_optional_seconds, 0.0, "as FARM_FIRST_BYTE_TIMEOUT, for this pool")
    idle_timeout: float = pool_setting(parse_optional_seconds, 0.0, "as FARM_IDLE_TIMEOUT, for this pool")
    total_timeout: float = pool_setting(parse_optional_seconds, 0.0, "as FARM_TOTAL_TIMEOUT, for this pool")
    private_credentials: bool = setting(
        "FARM_PRIVATE_CREDENTIALS",
        parse_bool,
        False,
        "whether callers may present a refresh token of their own in place of an API key, and have its account alone",
    )
    private_idle: float = setting(
        "FARM_PRIVATE_IDLE",
        parse_seconds,
        3600.0,
        "seconds without a request after which such a credential is forgotten",
    )
    private_most: int = setting("FARM_PRIVATE_MOST", int_parser(1, 10_000), 100, "most such credentials at once")
    count_usage: bool = setting(
        "FARM_COUNT_USAGE",
        parse_bool,
        True,
        "whether streams are asked for their usage; it is hidden from who did not ask",
    )

    @property
    def configured_name(self) -> str:
        """Its name; of a private credential's pool that of the configured one."""
        return names.configured_pool(self.name)


@dataclass(frozen=True)
class Settings:
    """Every setting of the farm, with its unit and meaning in `help`."""

    redis_url: str = setting(
        "REDIS_URL", parse_text, "", "Redis; unset: `./farm up` starts a private one in the data dir", secret=True
    )
    host: str = setting("HOST", parse_text, "127.0.0.1", "address the front listens on")
    port: int = setting("PORT", int_parser(1, 65535), 8000, "port the front listens on")
    web_concurrency: int = setting("WEB_CONCURRENCY", int_parser(0, 256), 0, "gunicorn processes; 0: half the cores")
    worker_processes: int = setting(
        "FARM_WORKER_PROCESSES", int_parser(0, 256), 0, "worker processes; 0: half the cores"
    )
    max_workers: int = setting(
        "FARM_MAX_WORKERS",
        int_parser(0),
        0,
        "most workers in one worker process; 0: a worker for each usable credential",
    )
    data_dir: str = setting(
        "FARM_DATA_DIR", parse_text, "./data", "where the private Redis, the key and the logs are kept"
    )
    secret_key: str = setting(
        "FARM_SECRET_KEY", parse_text, "", "encrypts the credentials; unset: made and kept in the data dir", secret=True
    )
    admin_token: str = setting(
        "FARM_ADMIN_TOKEN", parse_text, "", "opens /admin; unset: made on the first start and printed once", secret=True
    )
    api_key: str = setting(
        "FARM_API_KEY", parse_text, "", "an API key to create at start, for scripted installs", secret=True
    )
    max_queue: int = setting("FARM_MAX_QUEUE", int_parser(1), 10_000, "most requests that may wait in a pool's queue")
    queue_timeout: float = setting(
        "FARM_QUEUE_TIMEOUT", parse_seconds, 300.0, "seconds a request may wait for a worker"
    )
    connect_timeout: float = setting("FARM_CONNECT_TIMEOUT", parse_seconds, 10.0, "seconds to connect to the upstream")
    first_byte_timeout: float = setting(
        "FARM_FIRST_BYTE_TIMEOUT", parse_seconds, 300.0, "seconds until the upstream's first byte"
    )
    idle_timeout: float = setting(
        "FARM_IDLE_TIMEOUT", parse_seconds, 120.0, "seconds between two bytes of the upstream"
    )
    total_timeout: float = setting(
        "FARM_TOTAL_TIMEOUT", parse_seconds, 900.0, "seconds for a request in all, waiting and attempts included"
    )
    cooling_limit: float = setting(
        "FARM_COOLING_LIMIT",
        parse_seconds,
        300.0,
        "longest time in seconds an account pauses, whatever its Retry-After says",
    )
    max_attempts: int = setting(
        "FARM_MAX_ATTEMPTS", int_parser(1, 100), 8, "attempts per request, each on another credential"
    )
    on_disconnect: str = setting(
        "FARM_ON_DISCONNECT",
        choice_parser("cancel", "drain"),
        "cancel",
        "what becomes of the upstream request of a caller who has left: `cancel` it, or `drain` its answer",
    )
    keepalive: float = setting(
        "FARM_KEEPALIVE", parse_seconds, 10.0, "seconds of silence before an SSE comment is sent"
    )
    max_body: int = setting("FARM_MAX_BODY", int_parser(1), 26_214_400, "largest request body, in bytes")
    trusted_proxies: tuple[str, ...] = setting(
        "FARM_TRUSTED_PROXIES",
        parse_networks,
        (),
        "networks of the proxies whose X-Forwarded-For is believed, separated by commas; empty: none",
    )
    batch_age: float = setting(
        "FARM_BATCH_AGE",
        parse_seconds,
        30.0,
        "seconds after which a waiting batch request may go before interactive ones",
    )
    batch_turns: int = setting(
        "FARM_BATCH_TURNS",
        int_parser(1, 10_000),
        10,
        "one of so many turns goes to batch requests that have waited that long, while interactive ones wait",
    )
    request_log_entries: int = setting(
        "FARM_REQUEST_LOG_ENTRIES",
        int_parser(0),
        100_000,
        "most entries of the request log, about 200 bytes each in Redis",
    )
    request_log_days: float = setting("FARM_REQUEST_LOG_DAYS", parse_days, 7.0, "days that they are kept")
    usage_days: float = setting(
        "FARM_USAGE_DAYS", parse_days, 31.0, "days that usage is kept by the hour; by the day it is kept for 400"
    )
    log_level: str = setting(
        "FARM_LOG_LEVEL", choice_parser("debug", "info", "warning", "error"), "info", "least level that is logged"
    )
    log_format: str = setting("FARM_LOG_FORMAT", choice_parser("text", "json"), "text", "shape of a log line")
    #: The upstreams, `default` first when it is configured by the environment.
    pools: tuple[PoolSettings, ...] = (PoolSettings(),)

    def pool(self, name: str) -> PoolSettings:
        """The pool of that name, be it of a private credential; KeyError when there is none."""
        if not self.has_pool(name):
            raise KeyError(name)
        found = {pool.name: pool for pool in self.pools}[names.configured_pool(name)]
        return found if found.name == name else replace(found, name=name)

    @property
    def pool_names(self) -> list[str]:
        """Every configured pool's name."""
        return [pool.name for pool in self.pools]

    def has_pool(self, name: str) -> bool:
        """Whether there is a pool of that name, be it of a private credential."""
        family, private = names.configured_pool(name), names.is_private(name)
        return any(pool.name == family and (pool.private_credentials or not private) for pool in self.pools)

    def with_pool_timeouts(self, pool: PoolSettings) -> "Settings":
        """The settings with those times that the pool has of its own."""
        names = ("connect_timeout", "first_byte_timeout", "idle_timeout", "total_timeout")
        own = {name: value for name in names if (value := getattr(pool, name))}
        return replace(self, **own) if own else self

    @property
    def front_count(self) -> int:
        """gunicorn processes, with 0 resolved to half the cores."""
        return self.web_concurrency or default_process_count()

    @property
    def worker_process_count(self) -> int:
        """Worker processes, with 0 resolved to half the cores."""
        return self.worker_processes or default_process_count()


def default_process_count() -> int:
    """The default number of processes of either side."""
    return max(1, (os.cpu_count() or 1) // 2)


def setting_fields(cls: type) -> dict[str, Field[Any]]:
    """Field name -> field, of those that are settings."""
    return {f.name: f for f in fields(cls) if f.metadata}


def describe(values: Any) -> dict[str, Any]:
    """Every setting of a Settings or PoolSettings with its value; a secret only as set or unset."""
    found: dict[str, Any] = {}
    for name, one in setting_fields(type(values)).items():
        value = getattr(values, name)
        found[name] = ("set" if value else "unset") if one.metadata["secret"] else value
    return found


def default_value(one: Field[Any]) -> Any:
    """A field's default value."""
    if one.default_factory is not MISSING:
        return one.default_factory()
    return one.default
