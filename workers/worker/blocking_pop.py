"""Waits for a job with BLMOVE, which another greenlet can cancel without losing a job (I2)."""

from typing import Any

from redis.connection import ConnectionPool
from redis.exceptions import RedisError

#: Seconds to wait for a reply beyond the BLMOVE's own timeout.
REPLY_GRACE_SECONDS = 10.0


class BlockingPop:
    """One worker's blocking connection."""

    def __init__(self, connections: ConnectionPool, source: str, destination: str) -> None:
        self._connections = connections
        self._source = source
        self._destination = destination
        self._connection: Any = None
        #: The connection's id in Redis, for CLIENT UNBLOCK; 0 while there is none.
        self.client_id = 0
        #: That of a connection which broke in BLMOVE, 0 for none.
        self._lost_client_id = 0

    def pop(self, timeout: float) -> str | None:
        """Returns the id of the next job, moved to the intermediate queue; None on timeout or CLIENT UNBLOCK.

        Raises RedisError when the connection breaks; the next call opens a new one.
        """
        try:
            connection = self._connect()
            connection.send_command("BLMOVE", self._source, self._destination, "LEFT", "RIGHT", timeout)
            job_id = connection.read_response(timeout=timeout + REPLY_GRACE_SECONDS)
        except RedisError:
            self._lost_client_id = self.client_id or self._lost_client_id
            self.close()
            raise
        return job_id.decode() if job_id else None

    def _connect(self) -> Any:
        if self._connection is None:
            connection = self._connections.make_connection()
            connection.connect()
            self._end_lost_pop(connection)
            connection.send_command("CLIENT", "ID")
            self.client_id = int(connection.read_response())
            self._connection = connection
        return self._connection

    def _end_lost_pop(self, connection: Any) -> None:
        """Ends the BLMOVE of the connection that broke: Redis may not know yet, and would hand it the next job."""
        if self._lost_client_id:
            connection.send_command("CLIENT", "UNBLOCK", self._lost_client_id)
            connection.read_response()
            self._lost_client_id = 0

    def close(self) -> None:
        connection, self._connection, self.client_id = self._connection, None, 0
        if connection is not None:
            connection.disconnect()
