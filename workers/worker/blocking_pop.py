"""Where one idle worker waits: a BLMOVE on a connection of its own, that others can end without losing a job (I2)."""

from typing import Any

from redis.connection import ConnectionPool
from redis.exceptions import RedisError

#: Seconds that the connection may stay silent beyond the BLMOVE's own time.
SLACK_SECONDS = 10.0


class BlockingPop:
    """One worker's place in the queue of idle workers that Redis keeps."""

    def __init__(self, connections: ConnectionPool, source: str, destination: str) -> None:
        self._connections = connections
        self._source = source
        self._destination = destination
        self._connection: Any = None
        #: Redis's id of the connection while the worker waits on it; 0 otherwise.
        self.client_id = 0

    def pop(self, timeout: float) -> str | None:
        """The id of the next job, moved to the intermediate queue; None when time is up or `unblock` came.

        Raises RedisError or OSError when the connection breaks; the next call opens a new one.
        """
        try:
            connection = self._connect()
            connection.send_command("BLMOVE", self._source, self._destination, "LEFT", "RIGHT", timeout)
            job_id = connection.read_response(timeout=timeout + SLACK_SECONDS)
        except (RedisError, OSError):
            self.close()
            raise
        return job_id.decode() if job_id else None

    def _connect(self) -> Any:
        if self._connection is None:
            connection = self._connections.make_connection()
            connection.connect()
            connection.send_command("CLIENT", "ID")
            self.client_id = int(connection.read_response())
            self._connection = connection
        return self._connection

    def close(self) -> None:
        """Gives up the connection."""
        connection, self._connection, self.client_id = self._connection, None, 0
        if connection is not None:
            connection.disconnect()
