"""The unix socket on which the fronts listen behind the farm's own reverse proxy, instead of on HOST and PORT.

`./farm up` names it in the environment of gunicorn. Only its owner's processes can connect to it.
"""

#: Environment variable with the path of the socket.
SOCKET_VARIABLE = "FRONT_SOCKET"
