"""Creates something once per idempotency key, within the script that creates it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis

from shared import keys
from shared.errors import FarmError
from shared.parsing import parse_json_object

#: Functions for the scripts that create something.
CREATED_ONCE_LUA = Path(__file__).with_name("created_once.lua")
#: Seconds for which a retry gets the answer of the first request.
KEPT_SECONDS = 600


@dataclass(frozen=True)
class Once:
    """An idempotency key, as Redis has it, and what was asked for with it."""

    name: str
    print: str


@dataclass(frozen=True)
class KeptCreation:
    """What was asked for under a key, and the answer."""

    print: str
    answer: dict[str, Any]


class CreatedBefore(FarmError):
    """Raised when an earlier request with the idempotency key has created what is asked for."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__("it was created before")
        self.answer = answer


class CreatedOther(FarmError):
    """Raised when an earlier request with the idempotency key has created something else."""


def find_kept(redis: Redis, name: str) -> KeptCreation | None:
    """Raises RedisError."""
    stored = redis.hgetall(keys.creation(name))
    return KeptCreation(stored[b"print"].decode(), parse_json_object(stored[b"answer"])) if stored else None


def encode_once(once: Once | None, answer: dict[str, Any]) -> tuple[str, list[str | int]]:
    """The key of the record, and what the script gets of it: print, answer and lifetime."""
    if once is None:
        return keys.creation(""), ["", "", 0]
    return keys.creation(once.name), [once.print, json.dumps(answer), KEPT_SECONDS]


def check_first(result: Any) -> None:
    """Raises CreatedBefore, CreatedOther if the script has said so."""
    if isinstance(result, list):
        if result[0] == b"created":
            raise CreatedBefore(parse_json_object(result[1]))
        raise CreatedOther("it was asked for something else")
