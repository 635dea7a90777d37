"""Builds and parses the names of pools, RQ queues, RQ workers and requests."""

import secrets

from shared import clock

#: Separator between a configured pool's name and a private credential's id; never part of a configured name.
PRIVATE_SEPARATOR = "~"
#: Characters of a model's name by which limits per model tell it from others. Callers may send any name.
MAX_LIMITED_MODEL_LENGTH = 200
REQUEST_PREFIX = "req_"
#: Hexadecimal digits of the time in a UUID of version 7, and of all of it; bits of its two random parts.
TIME_DIGITS, UUID_DIGITS = 12, 32
FIRST_RANDOM_BITS, LAST_RANDOM_BITS = 12, 62


def private_pool(pool: str, credential_id: str) -> str:
    """The pool that holds only this private credential."""
    return f"{pool}{PRIVATE_SEPARATOR}{credential_id}"


def configured_pool(pool: str) -> str:
    """The configured pool behind a private credential's pool; a configured pool maps to itself."""
    return pool.partition(PRIVATE_SEPARATOR)[0]


def private_credential_id(pool: str) -> str:
    return pool.rpartition(PRIVATE_SEPARATOR)[2]


def is_private(pool: str) -> bool:
    return PRIVATE_SEPARATOR in pool


def limited_model(model: str) -> str:
    """An upstream's name of a model as limits per model know it: bounded, and with lone surrogates, which JSON can
    express and Redis' UTF-8 can't, escaped."""
    return model[:MAX_LIMITED_MODEL_LENGTH].encode("utf-8", "backslashreplace").decode()


def chat_queue(pool: str) -> str:
    return f"chat:{pool}"


def batch_queue(pool: str) -> str:
    return f"batch:{pool}"


def worker_name(pool: str, credential_id: str, slot: int = 1) -> str:
    """RQ worker of the credential; from the second slot on, `~` and the slot's number are appended."""
    return f"{pool}.{credential_id}" if slot == 1 else f"{pool}.{credential_id}~{slot}"


def credential_id_of(worker_name: str) -> str:
    return worker_name.rpartition(".")[2].partition("~")[0]


def new_request_id(at: float = 0) -> str:
    """A UUID of version 7 (RFC 9562), so that the id tells where in the request log to look; made now by default."""
    milliseconds = int(1000 * (at or clock.now()))
    first, last = divmod(secrets.randbits(FIRST_RANDOM_BITS + LAST_RANDOM_BITS), 1 << LAST_RANDOM_BITS)
    return f"{REQUEST_PREFIX}{milliseconds:012x}7{first:03x}{0b10 << LAST_RANDOM_BITS | last:016x}"


def find_request_time(request_id: str) -> float | None:
    """When an id was made, in seconds since the epoch; None for one of another form, of an earlier version maybe."""
    digits = request_id.removeprefix(REQUEST_PREFIX)
    if len(digits) != UUID_DIGITS or digits[TIME_DIGITS] != "7":
        return None
    try:
        return int(digits[:TIME_DIGITS], 16) / 1000
    except ValueError:
        return None
