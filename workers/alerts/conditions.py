"""The rules of alerts: what is wrong with the farm at this moment, as Redis has it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from redis import Redis

from shared import clock, keys
from shared.alerts.notices import Alert
from shared.api_keys.api_key import ApiKey
from shared.api_keys.quota_use import read_quota_use
from shared.api_keys.store import ApiKeys
from shared.credentials.pool_rest import API_KEY_REFUSED, build_reader
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
PATIENCE_SECONDS = {"pool_without_accounts": 10.0, "redis_not_on_disk": 10.0}

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
        fast_rules = (self._find_dead(states), self._find_empty_pools(states), self._find_outages(), self._find_waits())
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
                alert = Alert("account_dead", pool, id_, "account {name} is dead: {reason}", "account {name} was dead")
                yield alert, self._name(alert)

    def _find_doubts(self, states: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[Alert, BuildAlert]]:
        for pool, credentials in states.items():
            with self._redis.pipeline(transaction=False) as pipe:
                for id_ in credentials:
                    pipe.hexists(keys.credential(id_), "in_doubt_since")
                replies = pipe.execute() if credentials else []
            for id_ in (id_ for id_, is_in_doubt in zip(credentials, replies, strict=True) if is_in_doubt):
                text = "the token of account {name} may have been rotated: a refresh got no answer"
                alert = Alert("rotation_in_doubt", pool, id_, text, "the token of account {name} was in doubt")
                yield alert, self._name(alert)

    def _name(self, alert: Alert) -> BuildAlert:
        """The alert with the account's name and the reason of its state."""

        def build() -> Alert:
            name = find_credential_names(self._redis, [alert.subject]).get(alert.subject) or alert.subject
            reason = (self._redis.hget(keys.credential(alert.subject), "reason") or b"").decode() or "unknown reason"
            return replace_texts(alert, {"{name}": name, "{reason}": reason})

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
            text = "no account is in service" + (": all that are usable rest" if rest else "")
            yield keep(Alert("pool_without_accounts", pool.name, "", text, "no account was in service"))

    def _find_outages(self) -> Iterator[tuple[Alert, BuildAlert]]:
        names = self._settings.pool_names
        with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hget(keys.breaker(name), "reason")
                pipe.hget(keys.token_breaker(name), "reason")
            replies = pipe.execute()
        for name, reason, token_reason in zip(names, replies[::2], replies[1::2], strict=True):
            if reason is not None:
                text = f"the upstream is down ({reason.decode()}): requests wait"
                yield keep(Alert("upstream_down", name, "", text, "the upstream was down"))
            if token_reason is not None:
                yield keep(build_token_outage(name, token_reason.decode()))

    def _find_waits(self) -> Iterator[tuple[Alert, BuildAlert]]:
        limit = self._settings.alert_queue_wait
        for pool in self._settings.pool_names:
            if self._read_wait(pool) > limit:
                text = f"a request has waited for more than {limit:g} s"
                yield keep(Alert("queue_wait", pool, "", text, f"requests had to wait for more than {limit:g} s"))

    def _find_quotas(self) -> Iterator[tuple[Alert, BuildAlert]]:
        in_use = {key.id: key for key in ApiKeys(self._redis).list() if key.enabled and not key.revoked_at}
        for id_, use in read_quota_use(self._redis, in_use.values()).items():
            for percentage in QUOTA_PERCENTAGES:
                if 100 * use.share_of(in_use[id_]) >= percentage:
                    yield keep(build_quota_alert(in_use[id_], percentage))

    def _find_durability(self) -> Iterator[tuple[Alert, BuildAlert]]:
        state = read_durability(self._redis).state
        if text := DURABILITY_STATES[state]:
            yield keep(Alert("redis_not_on_disk", "", "", text, f"rotated tokens were not safe ({state})", 0, state))


def keep(alert: Alert) -> tuple[Alert, BuildAlert]:
    """An alert whose texts are complete."""
    return alert, lambda: alert


def build_token_outage(pool: str, reason: str) -> Alert:
    if reason == API_KEY_REFUSED:
        text = "the upstream refuses several API keys and accepts none"
        return Alert("upstream_down", pool, "", text, "the upstream refused all API keys", 0, "token")
    text = f"the token endpoint fails for several accounts ({reason})"
    return Alert("upstream_down", pool, "", text, "the token endpoint failed", 0, "token")


def build_quota_alert(key: ApiKey, percentage: int) -> Alert:
    name = key.name or key.id
    used = "all" if percentage == 100 else f"{percentage} %"
    when = "" if key.quota_reset == "never" else f"; it is reset {key.quota_reset}"
    over = f"API key {name} had used {used} of its quota"
    return Alert("quota", "", key.id, f"API key {name} has used {used} of its quota{when}", over, 0, str(percentage))


def replace_texts(alert: Alert, values: Mapping[str, Any]) -> Alert:
    text, over = alert.text, alert.over
    for placeholder, value in values.items():
        text, over = text.replace(placeholder, value), over.replace(placeholder, value)
    return Alert(alert.rule, alert.pool, alert.subject, text, over, alert.since, alert.detail)
