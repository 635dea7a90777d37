"""Runs a request that an operator has sent to one credential, in whatever state that is, between two jobs (I1).

It has no job: it waits in no queue, is not retried, and its failure says nothing about the credential. Only a token
request that fails does, as in every operation.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.credentials.evidence import TOKEN_ENDPOINT
from shared.decoding import UnreadableRecord, decode_record
from shared.observability.request_log import RequestLog
from shared.protocol.messages import OUT_OF_BAND, Failure, Frame, FrameKind, RelayRequest
from workers.attempt.attempt import Attempt
from workers.attempt.outcomes import Done, Failed, Outcome
from workers.worker.job_runner import JobRunner

log = logging.getLogger("farm.worker")


def run_direct(redis: Redis, runner: JobRunner, credential_id: str, encoded: Mapping[str, Any]) -> None:
    """Replies to the request's channel. Does nothing if its front has taken back the body: the caller has gone."""
    try:
        request, body = decode_record(RelayRequest, encoded), redis.getdel(keys.body(str(encoded.get("id"))))
    except UnreadableRecord as error:
        log.error("a request can't be read: %s", error, extra={"action": "errand_unreadable"})
        return
    if body is None:
        return
    attempt, outcome = runner.run_direct(request, body)
    record_end(redis, credential_id, attempt, judge(runner, outcome))


def judge(runner: JobRunner, outcome: Outcome) -> Outcome:
    """Tells the credential's health of a token request that has failed, and the operator what the endpoint has said."""
    if not isinstance(outcome, Failed) or not (outcome.fatal or outcome.evidence.source == TOKEN_ENDPOINT):
        return outcome
    runner.health.begin_cooldown(outcome)
    runner.health.publish_state(outcome)
    evidence, failure = outcome.evidence, outcome.failure
    said = " ".join(filter(None, (str(evidence.status or ""), evidence.code)))
    return replace(outcome, failure=replace(failure, message=f"{failure.message}: {said}")) if said else outcome


def record_end(redis: Redis, credential_id: str, attempt: Attempt, outcome: Outcome) -> None:
    """Replies with the error of a failed attempt, and writes the request log."""
    reason = "upstream_error" if isinstance(outcome, Failed) else outcome.reason
    if isinstance(outcome, Failed):
        attempt.delivery.reply_with_error(outcome)
    usage = attempt.usage() if isinstance(outcome, Done) else None
    try:
        RequestLog(redis).write([attempt.delivery.build_log_entry(reason, credential_id, usage)])
    except RedisError as error:
        log.warning("a request is not logged: %s", error, extra={"action": "redis_lost"})


def refuse_direct(redis: Redis, encoded: Mapping[str, Any], message: str) -> None:
    """Replies that the request can't be run here."""
    with suppress(UnreadableRecord):
        channel = decode_record(RelayRequest, encoded).channel
        failure = Failure(503, "no_worker", message)
        redis.publish(channel, Frame(FrameKind.FAILURE, OUT_OF_BAND, failure.encode()).encode())
