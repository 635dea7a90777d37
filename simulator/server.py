"""The simulator's HTTP server."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from simulator.api import Api, call_after
from simulator.certificate import create_tls_context
from simulator.control import handle_control
from simulator.http_connection import Connection, Request, encode_response
from simulator.sign_in.oauth_endpoints import handle_sign_in
from simulator.simulation import Simulation
from simulator.token_endpoint.endpoint import exchange_token, revoke_token
from simulator.token_endpoint.token_rules import TOKEN_PATH


class Simulator:
    """Dispatches requests to the API, the OAuth endpoints and the control endpoints."""

    def __init__(self, create_simulation: Callable[[], Simulation]) -> None:
        self._create_simulation = create_simulation
        self._restart()

    def _restart(self) -> None:
        """Begins anew as a new process would; responses that are on their way belong to the old simulation."""
        self._simulation = self._create_simulation()
        self._api = Api(self._simulation)

    def handle(self, connection: Connection, request: Request) -> None:
        """Responds to one request, now or later."""
        simulation = self._simulation
        path = request.path.partition("?")[0]
        if simulation.received is not None and path.startswith(("/v1/", TOKEN_PATH)):
            simulation.received.append(request.describe())
        if path.startswith("/v1/"):
            self._api.handle(connection, request, path)
        elif path == TOKEN_PATH or path.startswith(f"{TOKEN_PATH}/"):
            call_after(simulation.faults.token_delay, lambda: self._answer_token_request(connection, request))
        elif path == "/oauth/revoke":
            connection.finish(revoke_token(simulation, request))
        elif path == "/simulator/restart":
            self._restart()
            connection.finish(encode_response(200, b"{}"))
        else:
            response = handle_sign_in(simulation, request, path)
            connection.finish(response or handle_control(simulation, request, path))

    def _answer_token_request(self, connection: Connection, request: Request) -> None:
        response = exchange_token(self._simulation, request)
        call_after(self._simulation.faults.token_answer_delay, lambda: connection.finish(response))


async def serve(
    create_simulation: Callable[[], Simulation], host: str, port: int, certificate: Path | None = None
) -> None:
    """Serves until cancelled; prints its URL once it listens. With a path for its certificate, it serves HTTPS."""
    simulator = Simulator(create_simulation)
    loop = asyncio.get_running_loop()
    tls = create_tls_context(certificate) if certificate else None
    server = await loop.create_server(lambda: Connection(simulator.handle), host, port, backlog=4096, ssl=tls)
    bound = server.sockets[0].getsockname()[1]
    print(f"simulator: listening on {'https' if tls else 'http'}://{host}:{bound}", flush=True)
    async with server:
        await server.serve_forever()
