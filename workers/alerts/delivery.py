"""Sends one message to one receiver by apprise. Runs in a process of its own."""

import logging
from gettext import NullTranslations
from pathlib import Path

import apprise
from redis import Redis

from shared import clock, keys
from shared.alerts.notices import Message, compose
from shared.alerts.orders import CHECK, TEST, Order, Outcome
from shared.alerts.receivers import Receiver, mask_url, remove_secrets
from shared.alerts.store import read_notices
from shared.languages.catalogues import ENGLISH, load_languages, mark
from shared.redis_connection.client import connect, register_script
from shared.redis_connection.lease import NOT_HELD, build_lease
from shared.redis_connection.retry import retry_for

#: Milliseconds after which another process may send for one that was killed; longer than a delivery may take.
DELIVERY_TTL_MS = 75_000
TEST_TITLE = mark("Test")
TEST_BODY = mark("This is a test: alerts of this farm arrive here.")
#: Seconds that a service may take to answer.
READ_TIMEOUT_SECONDS = 30.0
#: Characters of an error that are kept.
MAX_ERROR_LENGTH = 300


class ErrorCollector(logging.Handler):
    """Keeps what apprise logs about a failure; its records may hold secrets and go nowhere else."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def check(url: str) -> str:
    """What is wrong with the URL, without secrets, or ''."""
    return "" if open_service(url, ErrorCollector()) else describe_unknown(url)


def open_service(url: str, errors: ErrorCollector) -> apprise.NotifyBase | None:
    """The service; what apprise logs goes to the collector. None for a URL that it does not take."""
    logger = logging.getLogger("apprise")
    logger.handlers, logger.propagate = [errors], False
    return apprise.Apprise.instantiate(url)


def describe_unknown(url: str) -> str:
    return f"FARM_ALERT_URLS: apprise knows no service {mask_url(url)}, or misses a part of its URL"


def send(url: str, message: Message) -> str:
    """Sends the message; returns why it failed, without secrets, or ''."""
    errors = ErrorCollector()
    service = open_service(url, errors)
    if service is None:
        return describe_unknown(url)
    # By default it takes 4 s without an answer for a failure, and the receiver would be told again.
    service.socket_read_timeout = max(service.socket_read_timeout, READ_TIMEOUT_SECONDS)
    if apprise.Apprise(service).notify(
        message.body, message.title, notify_type=apprise.NotifyType(message.kind), body_format=apprise.NotifyFormat.TEXT
    ):
        return ""
    return remove_secrets("; ".join(errors.texts) or "the service refused the message", url)[:MAX_ERROR_LENGTH]


def choose_texts(language: str) -> NullTranslations:
    """Those of the language; of English if this version has no such language."""
    languages = load_languages()
    return languages.get(language, languages[ENGLISH]).texts


def carry_out(order: Order) -> Outcome:
    """Raises RedisError."""
    if order.kind == CHECK:
        return Outcome(error=check(order.url))
    if order.kind == TEST:
        translate = choose_texts(order.language).gettext
        title = f"[{order.farm}] {translate(TEST_TITLE)}"
        return Outcome(error=send(order.url, Message("info", title, translate(TEST_BODY))))
    redis = connect(order.redis_url, size=2)
    lease, hold = keys.alert_delivery(order.receiver), build_lease(redis)
    if hold(lease, order.token, DELIVERY_TTL_MS) == NOT_HELD:
        return Outcome()
    try:
        return deliver(redis, order)
    finally:
        hold(lease, order.token, 0)


def deliver(redis: Redis, order: Order) -> Outcome:
    """Tells the receiver all that it has not been told, in one message."""
    clock.compare_with(redis)
    stored = redis.hget(keys.ALERT_RECEIVERS, order.receiver)
    receiver = Receiver.decode(stored) if stored else None
    notices = list(read_notices(redis, receiver.cursor)) if receiver else []
    if receiver is None or not notices:
        return Outcome()
    texts = choose_texts(order.language)
    error = send(order.url, compose([notice for _, notice in notices], order.farm, order.link, texts))
    now = clock.now()
    told = receiver.with_failure(error, now) if error else receiver.with_delivery(notices[-1][0], now)
    record_script = register_script(redis, Path(__file__).with_name("record_delivery.lua"))
    record_keys = [keys.alert_delivery(order.receiver), keys.ALERT_RECEIVERS]
    # Without this record the receiver would be told again.
    retry_for(lambda: record_script(keys=record_keys, args=[order.token, order.receiver, told.encode()]))
    return Outcome(0 if error else len(notices), error)
