"""The rules of alerts: what is wrong with the farm at this moment, as Redis has it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from redis import Redis

from shared import clock, keys
from shared.alerts.notices import Alert
from shared.api_keys.api_key import ApiKey
from shared.api_keys.quota_use import read_quota_use
from shared.api_keys.store import ApiKeys
from shared.credentials.pool_rest import API_KEY_REFUSED, build_reader
from shared.files.store_health import STATES as FILE_STORE_STATES
from shared.files.store_health import read_health
from shared.languages.catalogues import mark
from shared.observability.durability import STATES as DURABILITY_STATES
from shared.observability.durability import read_durability
from shared.observability.names_by_id import find_credential_names
from shared.queue_view.oldest_wait import build_wait_reader
from shared.redis_connection.client import decode_hash
from shared.settings.schema import Settings

#: Seconds for which all accounts of a pool may rest before it counts as one without accounts.
MAX_REST_SECONDS = 60.0
#: Used percentages of a quota that are told.
QUOTA_PERCENTAGES = (80, 100)
#: Seconds between two looks at what takes long to read: each API key's quota, each account's record.
SLOW_INTERVAL_SECONDS = 10.0
#: Seconds for which something must have been wrong before it is told, by rule; 0 for the others.
PATIENCE_SECONDS = {"pool_without_accounts": 10.0, "redis_not_on_disk": 10.0, "file_store_down": 10.0}

#: When a quota is reset (ApiKey.quota_reset) -> what is told of one that is used.
QUOTA_TEXTS = {
    "never": mark("API key %(name)s has used %(percentage)s %% of its quota"),
    "daily": mark("API key %(name)s has used %(percentage)s %% of its quota; it is reset daily"),
    "weekly": mark("API key %(name)s has used %(percentage)s %% of its quota; it is reset weekly"),
    "monthly": mark("API key %(name)s has used %(percentage)s %% of its quota; it is reset monthly"),
}

#: Makes the alert; only called for a new one, because names are looked up.
BuildAlert = Callable[[], Alert]
Found = Mapping[str, BuildAlert]


class Conditions:
    """Reads what is wrong, of the rules that are configured."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self._read_rest = build_reader(redis)
        self._read_wait = build_wait_reader(redis)
        self._slow: dict[str, BuildAlert] = {}
        self._slow_at = float("-inf")

    def find(self) -> Found:
        """Id of an alert -> what makes it, for all that is wrong now. Raises RedisError."""
        states = self._read_states()
        if time.monotonic() >= self._slow_at + SLOW_INTERVAL_SECONDS:
            slow_rules = (self._find_quotas(), self._find_doubts(states), self._find_durability())
            self._slow, self._slow_at = self._select(slow_rules), time.monotonic()
        fast_rules = (
            self._find_dead(states),
            self._find_empty_pools(states),
            self._find_outages(),
            self._find_waits(),
            self._find_file_trouble(),
        )
        return self._select(fast_rules) | self._slow

    def _select(self, rules: Sequence[Iterator[tuple[Alert, BuildAlert]]]) -> dict[str, BuildAlert]:
        """What the configured rules have found."""
        wanted = self._settings.alert_rules
        return {alert.id: build for rule in rules for alert, build in rule if alert.rule in wanted}

    def _read_states(self) -> dict[str, dict[str, str]]:
        """Pool -> credential -> state."""
        names = self._settings.pool_names
        with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hgetall(keys.credentials(name))
            return {name: decode_hash(reply) for name, reply in zip(names, pipe.execute(), strict=True)}

    def _find_dead(self, states: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[Alert, BuildAlert]]:
        for pool, credentials in states.items():
            for id_ in (id_ for id_, state in credentials.items() if state == "dead"):
                text, over = mark("account %(name)s is dead: %(reason)s"), mark("account %(name)s was dead")
                alert = Alert("account_dead", pool, id_, text, over)
                yield alert, self._name(alert)

    def _find_doubts(self, states: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[Alert, BuildAlert]]:
        for pool, credentials in states.items():
            with self._redis.pipeline(transaction=False) as pipe:
                for id_ in credentials:
                    pipe.hexists(keys.credential(id_), "in_doubt_since")
                replies = pipe.execute() if credentials else []
            for id_ in (id_ for id_, is_in_doubt in zip(credentials, replies, strict=True) if is_in_doubt):
                text = mark("the token of account %(name)s may have been rotated: a refresh got no answer")
                over = mark("the token of account %(name)s was in doubt")
                alert = Alert("rotation_in_doubt", pool, id_, text, over)
                yield alert, self._name(alert)

    def _name(self, alert: Alert) -> BuildAlert:
        """The alert with the account's name and the reason of its state."""

        def build() -> Alert:
            name = find_credential_names(self._redis, [alert.subject]).get(alert.subject) or alert.subject
            reason = (self._redis.hget(keys.credential(alert.subject), "reason") or b"").decode() or "unknown reason"
            return replace(alert, values={"name": name, "reason": reason})

        return build

    def _find_empty_pools(self, states: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[Alert, BuildAlert]]:
        for pool in self._settings.pools:
            credentials = states[pool.name].values()
            if "active" in credentials or (pool.private_credentials and not credentials):
                continue
            rest = self._read_rest((pool.name, "")) if "cooling" in credentials else None
            if rest is None and "cooling" in credentials:
                continue
            if rest is not None and rest.ends_at < clock.now() + MAX_REST_SECONDS:
                continue
            resting = mark("no account is in service: all that are usable rest")
            text = resting if rest else mark("no account is in service")
            yield keep(Alert("pool_without_accounts", pool.name, "", text, mark("no account was in service")))

    def _find_outages(self) -> Iterator[tuple[Alert, BuildAlert]]:
        names = self._settings.pool_names
        with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hget(keys.breaker(name), "reason")
                pipe.hget(keys.token_breaker(name), "reason")
            replies = pipe.execute()
        for name, reason, token_reason in zip(names, replies[::2], replies[1::2], strict=True):
            if reason is not None:
                text, values = mark("the upstream is down (%(reason)s): requests wait"), {"reason": reason.decode()}
                yield keep(Alert("upstream_down", name, "", text, mark("the upstream was down"), values=values))
            if token_reason is not None:
                yield keep(build_token_outage(name, token_reason.decode()))

    def _find_waits(self) -> Iterator[tuple[Alert, BuildAlert]]:
        limit = self._settings.alert_queue_wait
        for pool in self._settings.pool_names:
            if self._read_wait(pool) > limit:
                text = mark("a request has waited for more than %(seconds)s s")
                over = mark("requests had to wait for more than %(seconds)s s")
                yield keep(Alert("queue_wait", pool, "", text, over, values={"seconds": f"{limit:g}"}))

    def _find_quotas(self) -> Iterator[tuple[Alert, BuildAlert]]:
        in_use = {key.id: key for key in ApiKeys(self._redis).list() if key.enabled and not key.revoked_at}
        for id_, use in read_quota_use(self._redis, in_use.values()).items():
            for percentage in QUOTA_PERCENTAGES:
                if 100 * use.share_of(in_use[id_]) >= percentage:
                    yield keep(build_quota_alert(in_use[id_], percentage))

    def _find_durability(self) -> Iterator[tuple[Alert, BuildAlert]]:
        state = read_durability(self._redis).state
        if text := DURABILITY_STATES[state]:
            over = mark("rotated tokens were not safe (%(state)s)")
            yield keep(Alert("redis_not_on_disk", "", "", text, over, 0, state, {"state": state}))

    def _find_file_trouble(self) -> Iterator[tuple[Alert, BuildAlert]]:
        state = read_health(self._redis).state
        if text := FILE_STORE_STATES[state]:
            over = mark("no files could be stored (%(state)s)")
            yield keep(Alert("file_store_down", "", "", text, over, 0, state, {"state": state}))


def keep(alert: Alert) -> tuple[Alert, BuildAlert]:
    """An alert whose texts are complete."""
    return alert, lambda: alert


def build_token_outage(pool: str, reason: str) -> Alert:
    if reason == API_KEY_REFUSED:
        text = mark("the upstream refuses several API keys and accepts none")
        return Alert("upstream_down", pool, "", text, mark("the upstream refused all API keys"), 0, "token")
    text = mark("the token endpoint fails for several accounts (%(reason)s)")
    return Alert("upstream_down", pool, "", text, mark("the token endpoint failed"), 0, "token", {"reason": reason})


def build_quota_alert(key: ApiKey, percentage: int) -> Alert:
    values = {"name": key.name or key.id, "percentage": str(percentage)}
    over = mark("API key %(name)s had used %(percentage)s %% of its quota")
    return Alert("quota", "", key.id, QUOTA_TEXTS[key.quota_reset], over, 0, str(percentage), values)
