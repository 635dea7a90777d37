"""How worker processes connect to the token refresher of their host: a socket pair that all forks inherit.

A worker process sends the end of a socket pair of its own over it; the token refresher takes it. While the refresher is
being restarted, the ends wait in the kernel. There is no file, so none has to be placed, protected or cleaned up.
"""

import _socket
import array
import os
import socket

#: Ends that one message carries.
ENDS = 1


class Rendezvous:
    """Made by the supervisor before it forks; gevent's sockets are opened in the forks only."""

    def __init__(self) -> None:
        callers, takers = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self._callers, self._takers = callers.detach(), takers.detach()

    def connect(self) -> socket.socket:
        """Returns a connection to the refresher, which may take it later, or never."""
        own_end, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with other_end, socket.socket(fileno=os.dup(self._callers)) as door:
                socket.send_fds(door, [b"\0"], [other_end.fileno()])
        except BaseException:
            own_end.close()
            raise
        return own_end

    def accept(self) -> socket.socket:
        """Waits for the next connection."""
        with socket.socket(fileno=os.dup(self._takers)) as door:
            while True:
                _, ancillary, _, _ = door.recvmsg(1, socket.CMSG_SPACE(ENDS * array.array("i").itemsize))
                for level, kind, content in ancillary:
                    if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                        return socket.socket(fileno=array.array("i", content)[0])

    def close(self) -> None:
        """In the supervisor, once all forks that use it have ended."""
        os.close(self._callers)
        os.close(self._takers)
