"""Connections to the primary that the sentinels name, checked for its role: a replica takes no writes."""

import socket
from typing import Any

from redis.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from shared.redis_connection.primary_finder import Address, PrimaryFinder
from shared.redis_connection.tls_connection import SharedContextConnection


class PrimaryConnection(Connection):  # type: ignore[misc]
    """A connection that finds its server whenever it is opened."""

    def __init__(self, *, finder: PrimaryFinder, **options: Any) -> None:
        super().__init__(**options)
        self._finder = finder

    @property
    def peer(self) -> Address:
        return self.host, self.port

    @property
    def open_socket(self) -> socket.socket | None:
        sock: socket.socket | None = self._sock
        return sock

    def _connect(self) -> Any:
        self.host, self.port = self._finder.find()
        return super()._connect()

    def on_connect_check_health(self, check_health: bool = True) -> None:
        """Raises RedisConnectionError for a replica, such as a former primary that the sentinels have demoted."""
        super().on_connect_check_health(check_health=check_health)
        # HELLO needs no right that an ordinary user has not; ROLE does.
        self.send_command("HELLO", "2", check_health=check_health)
        reply = self.read_response()
        if dict(zip(reply[::2], reply[1::2], strict=True)).get(b"role") != b"master":
            raise RedisConnectionError(f"{self.host}:{self.port} is a replica: a failover is under way")
        self._finder.add(self)

    def read_response(self, *args: Any, **options: Any) -> Any:
        """A demoted primary's refusal is a broken connection: what was asked for is to be asked of the next one."""
        try:
            return super().read_response(*args, **options)
        except ResponseError as error:
            if not is_demotion(error):
                raise
            self.disconnect()
            raise RedisConnectionError("the server is no longer the primary") from None


class TlsPrimaryConnection(PrimaryConnection, SharedContextConnection):
    """The same over TLS."""


def is_demotion(error: ResponseError) -> bool:
    """Whether a server says by this that it has become a replica; scripts of Redis 6 have the code inside the text."""
    text = str(error)
    return "read only replica" in text or text.startswith("UNBLOCKED")
