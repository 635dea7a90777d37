"""Runs credential operations (test, refresh, revoke) on worker processes, which alone can unseal refresh tokens.

The operation is pushed to the list of the process that holds the credential's lease, the result to a list per
operation. Both expire after OPERATION_TIMEOUT_SECONDS.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from redis import Redis

from shared import keys
from shared.decoding import parse_record
from shared.errors import FarmError

#: Seconds until an operation must be done; one not started by then expires.
OPERATION_TIMEOUT_SECONDS = 60
#: Kind of an operation that relays a request; it has no result: the reply goes to the request's channel.
RELAY = "relay"
#: Kind of the operation that sends a test to all receivers of alerts; it is about no credential.
TEST_ALERTS = "test_alerts"


class NoWorkerProcess(FarmError):
    """Raised when no worker process runs an operation."""


@dataclass(frozen=True)
class CredentialOperation:
    """One operation on a credential."""

    pool: str
    credential_id: str
    #: `test`, `refresh`, `revoke`, one of a sign-in, RELAY or TEST_ALERTS.
    kind: str
    #: Model that a test requests, '' for any.
    model: str = ""
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    #: The RelayRequest of kind RELAY, encoded; its body is stored apart, as that of a queued one.
    request: Mapping[str, Any] = field(default_factory=dict)

    def encode(self) -> str:
        """Leaves out an empty `request`: version 0.1 reads no operation with a field that it does not know."""
        return json.dumps({name: value for name, value in asdict(self).items() if name != "request" or value})

    @classmethod
    def decode(cls, encoded: bytes) -> "CredentialOperation":
        """Raises UnreadableRecord."""
        return parse_record(cls, encoded)


class CredentialOperations:
    """Requests operations, and returns their results."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def request(self, operation: CredentialOperation, timeout: float = OPERATION_TIMEOUT_SECONDS) -> dict[str, Any]:
        """Returns the result of the operation within `timeout` seconds. Raises NoWorkerProcess."""
        self.send(operation)
        # Blocks for 5 s at a time, because the connections have a socket timeout of 10 s.
        for _ in range(max(1, round(timeout / 5))):
            if reply := self._redis.blpop([keys.operation_result(operation.id)], timeout=5):
                result: dict[str, Any] = json.loads(reply[1])
                return result
        raise NoWorkerProcess("the worker process did not reply in time; the credential may be busy")

    def send(self, operation: CredentialOperation) -> str:
        """Requests the operation without waiting for its result; returns the process. Raises NoWorkerProcess."""
        process = self._find_process(operation)
        with self._redis.pipeline() as pipe:
            pipe.rpush(keys.operations(process), operation.encode())
            pipe.expire(keys.operations(process), OPERATION_TIMEOUT_SECONDS)
            pipe.execute()
        return process

    def _find_process(self, operation: CredentialOperation) -> str:
        """Returns the process that has the credential, or watches for alerts; else the one that has reported last."""
        if operation.kind == TEST_ALERTS:
            if watching := self._redis.get(keys.ALERT_LEASE):
                return str(watching.decode())
        elif lease := self._redis.get(keys.lease(operation.credential_id)):
            return str(lease.decode().rpartition(":")[0])
        processes = self._redis.zrange(keys.PROCESSES, -1, -1)
        if not processes:
            raise NoWorkerProcess("no worker process is running")
        return str(processes[0].decode())

    def respond(self, operation: CredentialOperation, result: dict[str, Any]) -> None:
        with self._redis.pipeline() as pipe:
            pipe.rpush(keys.operation_result(operation.id), json.dumps(result))
            pipe.expire(keys.operation_result(operation.id), OPERATION_TIMEOUT_SECONDS)
            pipe.execute()
