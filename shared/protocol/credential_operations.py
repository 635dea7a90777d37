"""Errands: what an operator asks a worker process to do with one credential, because only workers can open its token.

The question goes to a list of the process that holds the credential, the answer to a list of its own; both die soon.
"""

import json
import secrets
from dataclasses import asdict, dataclass, field
from typing import Any

from redis import Redis

from shared import keys
from shared.errors import FarmError

#: Seconds that an errand may take; one that has not been begun by then is forgotten.
OPERATION_TIMEOUT_SECONDS = 60


class NoWorkerProcess(FarmError):
    """Raised when no worker process does an errand."""


@dataclass(frozen=True)
class CredentialOperation:
    """One errand."""

    pool: str
    credential_id: str
    #: `test`, `refresh` or `revoke`.
    kind: str
    #: What a test asks for, '' for whatever there is.
    model: str = ""
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    def encode(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, encoded: bytes) -> "CredentialOperation":
        """From JSON."""
        return cls(**json.loads(encoded))


class CredentialOperations:
    """Asks for errands, and answers them."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def request(self, errand: CredentialOperation, within: float = OPERATION_TIMEOUT_SECONDS) -> dict[str, Any]:
        """What came of it. Raises NobodyThere."""
        process = self._find_process(errand.credential_id)
        with self._redis.pipeline() as pipe:
            pipe.rpush(keys.operations(process), errand.encode())
            pipe.expire(keys.operations(process), OPERATION_TIMEOUT_SECONDS)
            pipe.execute()
        # The pool's connections are given up after ten silent seconds.
        for _ in range(max(1, round(within / 5))):
            if found := self._redis.blpop([keys.operation_result(errand.id)], timeout=5):
                answer: dict[str, Any] = json.loads(found[1])
                return answer
        raise NoWorkerProcess("the worker process did not answer in time; its account may be busy")

    def _find_process(self, credential_id: str) -> str:
        """The process that holds the credential, else any."""
        lease = self._redis.get(keys.lease(credential_id))
        if lease:
            return str(lease.decode().rpartition(":")[0])
        processes = self._redis.zrange(keys.PROCESSES, -1, -1)
        if not processes:
            raise NoWorkerProcess("no worker process lives")
        return str(processes[0].decode())

    def respond(self, errand: CredentialOperation, found: dict[str, Any]) -> None:
        """Says what came of an errand."""
        with self._redis.pipeline() as pipe:
            pipe.rpush(keys.operation_result(errand.id), json.dumps(found))
            pipe.expire(keys.operation_result(errand.id), OPERATION_TIMEOUT_SECONDS)
            pipe.execute()
