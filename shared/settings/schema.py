"""Definitions of all settings: name, parser, default and help text."""

import os
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any

from shared import names
from shared.languages.catalogues import ENGLISH
from shared.settings.alert_parsers import ALERT_RULES, parse_alert_language, parse_alert_rules, parse_alert_urls
from shared.settings.parsers import (
    Parser,
    choice_parser,
    int_parser,
    parse_bool,
    parse_days,
    parse_error_codes,
    parse_headers,
    parse_hosts,
    parse_mapping,
    parse_names,
    parse_networks,
    parse_optional_seconds,
    parse_seconds,
    parse_share,
    parse_text,
    parse_token_auth,
    secret_parser,
)
from shared.settings.url_parsers import parse_base_url, parse_files_url, parse_proxy_url, parse_redis_url, parse_url

#: Codes, besides `invalid_grant`, by which token endpoints refuse a refresh token: GitHub's, Auth0's and OpenAI's, and
#: what others call the same.
DEFAULT_FATAL_TOKEN_ERRORS = (
    *("bad_refresh_token", "refresh_token_reused", "refresh_token_expired", "refresh_token_invalidated"),
    *("refresh_token_revoked", "invalid_refresh_token", "expired_refresh_token", "token_expired", "token_revoked"),
)
#: Timeouts that a pool may override.
POOL_TIMEOUTS = ("connect_timeout", "first_byte_timeout", "idle_timeout", "total_timeout")
#: FARM_HTTPS -> port of the HTTPS endpoint.
DEFAULT_HTTPS_PORTS = {"auto": 443, "internal": 8443}


def setting(env: str, parse: Parser, default: Any, help_: str, *, secret: bool = False) -> Any:
    """Declares a field of Settings or PoolSettings; `env` is its environment variable, '' for none."""
    meta = {"env": env, "parse": parse, "help": help_, "secret": secret}
    factory = {"default_factory": lambda: default} if isinstance(default, dict) else {"default": default}
    return field(metadata=meta, repr=not secret, **factory)


def pool_setting(parse: Parser, default: Any, help_: str) -> Any:
    """Declares a field of PoolSettings that only `farm.toml` can set."""
    return setting("", parse, default, help_)


@dataclass(frozen=True)
class PoolSettings:
    """Settings of one pool: its upstream, token endpoint and models."""

    #: Name of the pool; the FARM_ variables configure the pool `default`.
    name: str = "default"
    upstream_url: str = setting(
        "FARM_UPSTREAM_URL",
        parse_base_url,
        "",
        "base URL of the upstream, ending in /v1; unset: `./farm up` starts the bundled simulator",
    )
    credential_kind: str = setting(
        "FARM_CREDENTIAL_KIND",
        choice_parser("refresh_token", "api_key", "client_credentials", "service_account"),
        "refresh_token",
        "what a credential is: a `refresh_token`, an `api_key` (sent as it is), `client_credentials` (RFC 6749 section "
        "4.4), or the key file of a `service_account` (RFC 7523)",
    )
    account_limits: str = setting(
        "FARM_ACCOUNT_LIMITS",
        choice_parser("auto", "account", "model"),
        "auto",
        "what the upstream counts its limits per: an account that is limited for one model rests for that `model` and "
        "serves the others, or rests as a whole (`account`); `auto` finds out",
    )
    token_url: str = setting(
        "FARM_TOKEN_URL",
        parse_url,
        "",
        "OAuth 2 token endpoint for the credentials, if not the issuer's; API keys need none",
    )
    issuer: str = setting(
        "FARM_ISSUER",
        parse_url,
        "",
        "issuer of OpenID Connect or OAuth metadata (RFC 8414): where `./farm credentials login` finds the endpoints",
    )
    authorize_url: str = setting(
        "FARM_AUTHORIZE_URL",
        parse_url,
        "",
        "authorization endpoint for signing in by browser, if not the issuer's; its query is kept",
    )
    device_url: str = setting(
        "FARM_DEVICE_URL",
        parse_url,
        "",
        "device authorization endpoint (RFC 8628) for signing in by code, if not the issuer's",
    )
    simulator: bool = setting(
        "FARM_SIMULATOR",
        parse_bool,
        False,
        "set by `./farm up`: the upstream is the bundled simulator, to which no other credential's token is sent",
    )
    token_request: str = setting(
        "FARM_TOKEN_REQUEST",
        choice_parser("form", "json", "bearer"),
        "form",
        "format of token requests: `form` (RFC 6749), `json`, or `bearer` (no body, token in the header)",
    )
    client_id: str = setting("FARM_CLIENT_ID", parse_text, "", "OAuth client id, if the token endpoint requires one")
    client_secret: str = setting("FARM_CLIENT_SECRET", parse_text, "", "OAuth client secret", secret=True)
    token_auth: str = setting(
        "FARM_TOKEN_AUTH",
        parse_token_auth,
        "auto",
        "where token requests have client id and secret: HTTP `basic` (`client_secret_basic`), the `body` "
        "(`client_secret_post`), or `auto`: the one that is accepted; or `private_key_jwt`: an assertion, no secret",
    )
    token_auth_key: str = setting(
        "FARM_TOKEN_AUTH_KEY",
        parse_text,
        "",
        "private key (PEM, or a file of it) that signs the client's assertions with `private_key_jwt`",
        secret=True,
    )
    token_auth_kid: str = setting(
        "FARM_TOKEN_AUTH_KID", parse_text, "", "id of that key (`kid`), if the token endpoint wants it"
    )
    token_parameters: Mapping[str, str] = setting(
        "FARM_TOKEN_PARAMETERS",
        parse_mapping,
        {},
        "JSON object: additional parameters of token requests, `audience` or `resource` for example",
        secret=True,
    )
    fatal_token_errors: tuple[str, ...] = setting(
        "FARM_FATAL_TOKEN_ERRORS",
        parse_error_codes,
        DEFAULT_FATAL_TOKEN_ERRORS,
        "error codes of the token endpoint that mean, as `invalid_grant` does, that the refresh token is invalid",
    )
    token_headers: Mapping[str, str] = setting(
        "FARM_TOKEN_HEADERS",
        parse_headers,
        {},
        "JSON object: additional headers of token requests",
        secret=True,
    )
    revocation_url: str = setting(
        "FARM_REVOCATION_URL",
        parse_url,
        "",
        "revocation endpoint for refresh tokens (RFC 7009), if the upstream has one",
    )
    scope: str = setting(
        "FARM_SCOPE", parse_text, "", "OAuth scope to request; unset: none, and `openid offline_access` when signing in"
    )
    refresh_tokens_file: str = setting(
        "FARM_REFRESH_TOKENS_FILE",
        parse_text,
        "",
        "file of refresh tokens, in any form that `credentials import` takes, imported at start",
    )
    models: tuple[str, ...] = setting(
        "FARM_MODELS",
        parse_names,
        (),
        "models served, separated by commas; empty: any model, and the upstream provides the list",
    )
    model_map: Mapping[str, str] = setting(
        "FARM_MODEL_MAP", parse_mapping, {}, "JSON object: requested model name -> upstream model name"
    )
    map_back: bool = setting(
        "FARM_MAP_BACK",
        parse_bool,
        False,
        "whether replies contain the caller's model name where FARM_MODEL_MAP replaced it",
    )
    passed_query: tuple[str, ...] = setting(
        "FARM_PASSED_QUERY",
        parse_names,
        ("api-version",),
        "parameters of a caller's query that the upstream gets, separated by commas; all others are dropped",
    )
    priority: int = pool_setting(
        int_parser(0), 0, "among the pools that serve a model, those with the lowest number are preferred"
    )
    weight: float = pool_setting(parse_share, 1.0, "share of the requests among pools of equal priority")
    overflow_wait: float = pool_setting(
        parse_optional_seconds, 0.0, "expected wait in seconds above which requests go to the next pool; 0: never"
    )
    proxy: str = setting(
        "FARM_UPSTREAM_PROXY",
        parse_proxy_url,
        "",
        "HTTP or SOCKS proxy for the upstream and the token endpoint",
        secret=True,
    )
    ca_bundle: str = setting(
        "FARM_CA_BUNDLE", parse_text, "", "file of trusted CA certificates, if not the default ones"
    )
    client_cert: str = setting(
        "FARM_CLIENT_CERT",
        parse_text,
        "",
        "file of the certificate (PEM, with its chain) that upstream and token endpoint get if they ask for one",
    )
    client_key: str = setting(
        "FARM_CLIENT_KEY", parse_text, "", "file of its private key, unencrypted; unset: it is in FARM_CLIENT_CERT"
    )
    headers: Mapping[str, str] = setting(
        "FARM_UPSTREAM_HEADERS",
        parse_headers,
        {},
        "JSON object: additional headers of upstream requests",
        secret=True,
    )
    slots: int = setting("FARM_SLOTS", int_parser(1, 100), 1, "maximum concurrent requests per credential")
    account_rpm: int | None = setting(
        "FARM_ACCOUNT_RPM",
        int_parser(1),
        None,
        "maximum requests per minute and account at the upstream; unset: any number",
    )
    account_tpm: int | None = setting(
        "FARM_ACCOUNT_TPM", int_parser(1), None, "maximum tokens per minute and account; unset: any number"
    )
    account_rpd: int | None = setting(
        "FARM_ACCOUNT_RPD", int_parser(1), None, "maximum requests in 24 hours per account; unset: any number"
    )
    account_gap: float | None = setting(
        "FARM_ACCOUNT_GAP",
        parse_seconds,
        None,
        "minimum seconds between the end of a request and the start of the account's next; unset: none",
    )
    connect_timeout: float = pool_setting(
        parse_optional_seconds, 0.0, "overrides FARM_CONNECT_TIMEOUT for this pool; 0: no override"
    )
    first_byte_timeout: float = pool_setting(
        parse_optional_seconds, 0.0, "overrides FARM_FIRST_BYTE_TIMEOUT for this pool; 0: no override"
    )
    idle_timeout: float = pool_setting(
        parse_optional_seconds, 0.0, "overrides FARM_IDLE_TIMEOUT for this pool; 0: no override"
    )
    total_timeout: float = pool_setting(
        parse_optional_seconds, 0.0, "overrides FARM_TOTAL_TIMEOUT for this pool; 0: no override"
    )
    private_credentials: bool = setting(
        "FARM_PRIVATE_CREDENTIALS",
        parse_bool,
        False,
        "whether callers may present their own refresh token instead of an API key, for exclusive use of its account",
    )
    private_idle: float = setting(
        "FARM_PRIVATE_IDLE",
        parse_seconds,
        3600.0,
        "idle seconds after which a private credential is deleted",
    )
    private_most: int = setting(
        "FARM_PRIVATE_MOST", int_parser(1, 10_000), 100, "maximum private credentials in the pool"
    )
    cache_ttl: float = setting(
        "FARM_CACHE_TTL",
        parse_optional_seconds,
        0.0,
        "seconds for which an answer is kept for requests that ask the same; 0: not at all",
    )
    cache_scope: str = setting(
        "FARM_CACHE_SCOPE",
        choice_parser("key", "pool"),
        "key",
        "who shares answers: requests of one API `key`, or all of the `pool`",
    )
    join_requests: bool = setting(
        "FARM_JOIN_REQUESTS",
        parse_bool,
        False,
        "whether requests that ask the same at the same time are run once, also without FARM_CACHE_TTL",
    )
    count_usage: bool = setting(
        "FARM_COUNT_USAGE",
        parse_bool,
        True,
        "whether usage is requested for every stream; callers who did not request it do not see it",
    )

    @property
    def client_certificate(self) -> tuple[str, str] | None:
        """The files of the client certificate and of its private key; None for none."""
        return (self.client_cert, self.client_key or self.client_cert) if self.client_cert else None

    @property
    def configured_name(self) -> str:
        """Name of the configured pool behind this one; its own name unless it belongs to a private credential."""
        return names.configured_pool(self.name)


@dataclass(frozen=True)
class Settings:
    """All settings of the farm; units are in the help texts."""

    redis_url: str = setting(
        "REDIS_URL",
        parse_redis_url,
        "",
        "URL of Redis, or of its sentinels; unset: `./farm up` starts a private one in the data dir",
        secret=True,
    )
    wait_replicas: int = setting(
        "FARM_WAIT_REPLICAS",
        int_parser(0, 16),
        0,
        "replicas of Redis that must hold a rotated refresh token before its access token is used",
    )
    host: str = setting("HOST", parse_text, "127.0.0.1", "address the front listens on")
    port: int = setting("PORT", int_parser(1, 65535), 8000, "port the front listens on")
    domain: tuple[str, ...] = setting(
        "FARM_DOMAIN",
        parse_hosts,
        (),
        "public names of the farm, separated by commas; `./farm up` serves HTTPS for them, with automatic certificates",
    )
    https: str = setting(
        "FARM_HTTPS",
        choice_parser("off", "internal", "auto"),
        "off",
        "HTTPS endpoint of `./farm up`: `off`, `internal` (certificates of a local CA, for a LAN or a try), or `auto` "
        "(public certificates for FARM_DOMAIN, which alone means `auto`)",
    )
    https_port: int = setting(
        "FARM_HTTPS_PORT",
        int_parser(0, 65535),
        0,
        "port of the HTTPS endpoint; 0: 443 with `auto` (80 redirects to it), 8443 with `internal`",
    )
    web_concurrency: int = setting(
        "WEB_CONCURRENCY", int_parser(0, 256), 0, "number of fronts (gunicorn workers); 0: half the cores"
    )
    worker_processes: int = setting(
        "FARM_WORKER_PROCESSES", int_parser(0, 256), 0, "number of worker processes; 0: half the cores"
    )
    max_workers: int = setting(
        "FARM_MAX_WORKERS",
        int_parser(0),
        0,
        "maximum workers per worker process; 0: no limit",
    )
    data_dir: str = setting(
        "FARM_DATA_DIR", parse_text, "./data", "directory of the private Redis, the secret key and the logs"
    )
    secret_key: str = setting(
        "FARM_SECRET_KEY",
        parse_text,
        "",
        "key that encrypts the credentials; unset: generated and kept in the data dir",
        secret=True,
    )
    admin_token: str = setting(
        "FARM_ADMIN_TOKEN",
        secret_parser(8),
        "",
        "token for /admin, at least 8 characters, better 16; unset: generated on the first start and printed once",
        secret=True,
    )
    metrics_token: str = setting(
        "FARM_METRICS_TOKEN",
        secret_parser(16),
        "",
        "Bearer token that /metrics and /api/status ask for, at least 16 characters; unset: anyone may read them",
        secret=True,
    )
    api_key: str = setting(
        "FARM_API_KEY", parse_text, "", "API key to create at start, for scripted installs", secret=True
    )
    max_queue: int = setting("FARM_MAX_QUEUE", int_parser(1), 10_000, "maximum requests waiting in a pool's queue")
    max_queue_bytes: int = setting(
        "FARM_MAX_QUEUE_BYTES",
        int_parser(1),
        268_435_456,
        "maximum bytes of request bodies in Redis, at least FARM_MAX_BODY; a key may hold as much as is left free",
    )
    cache_bytes: int = setting(
        "FARM_CACHE_BYTES",
        int_parser(0),
        268_435_456,
        "maximum bytes of kept answers in Redis, compressed and sealed; the least recently used go first",
    )
    queue_timeout: float = setting(
        "FARM_QUEUE_TIMEOUT", parse_seconds, 300.0, "seconds a request may wait for a worker"
    )
    connect_timeout: float = setting("FARM_CONNECT_TIMEOUT", parse_seconds, 10.0, "seconds to connect to the upstream")
    first_byte_timeout: float = setting(
        "FARM_FIRST_BYTE_TIMEOUT", parse_seconds, 300.0, "seconds until the first byte from the upstream"
    )
    idle_timeout: float = setting(
        "FARM_IDLE_TIMEOUT", parse_seconds, 120.0, "seconds between two bytes from the upstream"
    )
    total_timeout: float = setting(
        "FARM_TOTAL_TIMEOUT", parse_seconds, 900.0, "seconds for a whole request, including waiting and all attempts"
    )
    drain: float = setting(
        "FARM_DRAIN",
        parse_optional_seconds,
        30.0,
        "seconds that running requests get to end when a process is stopped; a reload gives them FARM_TOTAL_TIMEOUT",
    )
    cooling_limit: float = setting(
        "FARM_COOLING_LIMIT",
        parse_seconds,
        300.0,
        "maximum cooldown of a credential in seconds, whatever its Retry-After says",
    )
    refusal_patience: float = setting(
        "FARM_REFUSAL_PATIENCE",
        parse_seconds,
        36.0,
        "seconds for which a refused refresh token is presented again before its credential is dead; half of that when "
        "others of its pool are granted tokens meanwhile",
    )
    max_attempts: int = setting(
        "FARM_MAX_ATTEMPTS",
        int_parser(1, 100),
        8,
        "maximum attempts per request, each on another credential while there is one",
    )
    on_disconnect: str = setting(
        "FARM_ON_DISCONNECT",
        choice_parser("cancel", "drain"),
        "cancel",
        "what happens to the upstream request when its caller disconnects: `cancel` it, or `drain` the response",
    )
    keepalive: float = setting(
        "FARM_KEEPALIVE", parse_seconds, 10.0, "seconds of silence before an SSE comment is sent"
    )
    max_body: int = setting("FARM_MAX_BODY", int_parser(1), 26_214_400, "maximum size of a request body in bytes")
    body_timeout: float = setting(
        "FARM_BODY_TIMEOUT",
        parse_seconds,
        30.0,
        "seconds in which each 64 KB of a request body must arrive; 408 afterwards",
    )
    trusted_proxies: tuple[str, ...] = setting(
        "FARM_TRUSTED_PROXIES",
        parse_networks,
        (),
        "networks of the proxies whose X-Forwarded-For is trusted, separated by commas; empty: none",
    )
    admin_networks: tuple[str, ...] = setting(
        "FARM_ADMIN_NETWORKS",
        parse_networks,
        (),
        "networks that /admin, /metrics and /api/status answer to, separated by commas (127.0.0.1,::1 for this machine "
        "alone); empty: all",
    )
    max_connections_per_address: int = setting(
        "FARM_MAX_CONNECTIONS_PER_ADDRESS",
        int_parser(0),
        5000,
        "connections that a front takes from one address (IPv6: /64), but for proxies and this machine; 0: any number",
    )
    batch_age: float = setting(
        "FARM_BATCH_AGE",
        parse_seconds,
        30.0,
        "seconds after which a waiting batch request may overtake interactive ones",
    )
    batch_turns: int = setting(
        "FARM_BATCH_TURNS",
        int_parser(1, 10_000),
        10,
        "while interactive requests wait, one job in this many is a batch request older than FARM_BATCH_AGE",
    )
    request_log_entries: int = setting(
        "FARM_REQUEST_LOG_ENTRIES",
        int_parser(0),
        100_000,
        "maximum entries in the request log, about 200 bytes each in Redis",
    )
    request_log_days: float = setting(
        "FARM_REQUEST_LOG_DAYS", parse_days, 7.0, "days for which entries of the request log are kept"
    )
    usage_days: float = setting(
        "FARM_USAGE_DAYS", parse_days, 31.0, "days for which hourly usage is kept; daily usage is kept for 400 days"
    )
    files_url: str = setting(
        "FARM_FILES_URL",
        parse_files_url,
        "",
        "store of the bytes of files: file:///directory, or s3://bucket/prefix?endpoint=…&region=… for several hosts; "
        "unset: the directory `files` in the data dir",
        secret=True,
    )
    files_ttl: float = setting("FARM_FILES_TTL", parse_days, 30.0, "days for which a file is kept")
    max_file: int = setting(
        "FARM_MAX_FILE",
        int_parser(1),
        536_870_912,
        "maximum bytes of an uploaded file; the input of a batch has 200 MB at most",
    )
    files_bytes: int = setting(
        "FARM_FILES_BYTES", int_parser(0), 2_147_483_648, "maximum bytes of the files that an API key may store"
    )
    files_count: int = setting(
        "FARM_FILES_COUNT", int_parser(0), 1000, "maximum number of files that an API key may store"
    )
    alert_urls: tuple[str, ...] = setting(
        "FARM_ALERT_URLS",
        parse_alert_urls,
        (),
        "who is alerted: apprise URLs (mailto://…, tgram://…, json://… and a hundred more), separated by white space",
        secret=True,
    )
    alert_rules: tuple[str, ...] = setting(
        "FARM_ALERT_RULES", parse_alert_rules, tuple(ALERT_RULES), "what is alerted of, separated by commas"
    )
    alert_language: str = setting("FARM_ALERT_LANGUAGE", parse_alert_language, ENGLISH, "language of alerts: en or zh")
    alert_queue_wait: float = setting(
        "FARM_ALERT_QUEUE_WAIT", parse_seconds, 60.0, "seconds that an interactive request waits before an alert"
    )
    alert_hourly_limit: int = setting(
        "FARM_ALERT_HOURLY_LIMIT",
        int_parser(1, 3600),
        20,
        "maximum messages an hour to each receiver; alerts beyond it wait, and come together in one message",
    )
    log_level: str = setting(
        "FARM_LOG_LEVEL", choice_parser("debug", "info", "warning", "error"), "info", "minimum level of log records"
    )
    log_format: str = setting("FARM_LOG_FORMAT", choice_parser("text", "json"), "text", "format of log records")
    #: The configured pools; `default` comes first if the environment configures it.
    pools: tuple[PoolSettings, ...] = (PoolSettings(),)

    def pool(self, name: str) -> PoolSettings:
        """Finds a pool, also that of a private credential. Raises KeyError."""
        if not self.has_pool(name):
            raise KeyError(name)
        pool = {pool.name: pool for pool in self.pools}[names.configured_pool(name)]
        return pool if pool.name == name else replace(pool, name=name)

    @property
    def pool_names(self) -> list[str]:
        return [pool.name for pool in self.pools]

    def has_pool(self, name: str) -> bool:
        """Whether the pool is configured, or may exist for a private credential."""
        configured_name, is_private = names.configured_pool(name), names.is_private(name)
        return any(pool.name == configured_name and (pool.private_credentials or not is_private) for pool in self.pools)

    def with_pool_timeouts(self, pool: PoolSettings) -> "Settings":
        """These settings with the timeouts that the pool overrides."""
        overrides = {name: value for name in POOL_TIMEOUTS if (value := getattr(pool, name))}
        return replace(self, **overrides) if overrides else self

    @property
    def max_total_timeout(self) -> float:
        """The longest total timeout of any pool, in seconds: by then every request has ended."""
        return max(self.with_pool_timeouts(pool).total_timeout for pool in self.pools)

    @property
    def has_https(self) -> bool:
        """Whether `./farm up` runs a reverse proxy that serves HTTPS."""
        return self.https != "off"

    @property
    def https_endpoint_port(self) -> int:
        return self.https_port or DEFAULT_HTTPS_PORTS[self.https]

    @property
    def front_count(self) -> int:
        return self.web_concurrency or default_process_count()

    @property
    def worker_process_count(self) -> int:
        return self.worker_processes or default_process_count()


def default_process_count() -> int:
    return max(1, (os.cpu_count() or 1) // 2)


def setting_fields(cls: type) -> dict[str, Field[Any]]:
    """Field name -> field, without fields that are no settings."""
    return {f.name: f for f in fields(cls) if f.metadata}


def describe(values: Any) -> dict[str, Any]:
    """Values of a Settings or PoolSettings by name; secrets appear only as `set` or `unset`."""
    described: dict[str, Any] = {}
    for name, setting_field in setting_fields(type(values)).items():
        value = getattr(values, name)
        described[name] = ("set" if value else "unset") if setting_field.metadata["secret"] else value
    return described


def default_value(setting_field: Field[Any]) -> Any:
    if setting_field.default_factory is not MISSING:
        return setting_field.default_factory()
    return setting_field.default
