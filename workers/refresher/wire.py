"""What worker processes and their token refresher say to each other: one JSON object a line, and no token in it."""

import json
from dataclasses import asdict
from typing import Any

from redis.exceptions import RedisError

from shared import errors
from shared.errors import TokenError
from workers.credentials.refresh_request import RefreshRequest
from workers.sign_in.accounts import AccountKnown

#: The refresher's first line: it has taken the connection.
GREETING = b'{"taken": true}\n'
#: Errors that are raised again on the other side, with their attributes; any other becomes a TokenError.
KNOWN_ERRORS: dict[str, type[Exception]] = {
    **{
        error.__name__: error
        for error in (
            *(errors.TokenError, errors.InvalidGrant, errors.TokenRefused, errors.TokenEndpointDown),
            *(errors.LeaseLost, errors.ForeignCredential, errors.WrongSecretKey, errors.RefreshPending),
            AccountKnown,
        )
    },
    "RedisError": RedisError,
}


def encode_request(number: int, request: RefreshRequest) -> bytes:
    return json.dumps({"number": number, "request": asdict(request)}).encode() + b"\n"


def decode_request(line: bytes) -> tuple[int, RefreshRequest]:
    message = json.loads(line)
    return message["number"], RefreshRequest(**message["request"])


def encode_result(number: int, failure: BaseException | None) -> bytes:
    """`failure` is what the refresh has raised, None when it has succeeded."""
    message: dict[str, Any] = {"number": number}
    if failure is not None:
        kind = "RedisError" if isinstance(failure, RedisError) else type(failure).__name__
        attributes = {} if kind == "RedisError" else vars(failure)
        message |= {"error": kind, "message": str(failure), "attributes": attributes}
    return json.dumps(message).encode() + b"\n"


def decode_result(line: bytes) -> tuple[int, Exception | None]:
    message = json.loads(line)
    if "error" not in message:
        return message["number"], None
    kind = KNOWN_ERRORS.get(message["error"], TokenError)
    failure = kind.__new__(kind, message["message"])
    vars(failure).update(message["attributes"])
    return message["number"], failure
