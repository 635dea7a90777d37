"""The simulator's OpenAI API: checks the account, draws a fault and sends the response at the set pace."""

import asyncio
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from functools import partial
from typing import Any

from simulator import responses
from simulator.accounts import SimulatedAccount, TokenRefused
from simulator.errors import encode_error
from simulator.http_connection import STREAM_END, STREAM_HEAD, Connection, Request, encode_chunk, encode_response
from simulator.responses import encode_json
from simulator.routes import FAULT_BODIES, MULTIPART_PATHS, RESPONSE_BUILDERS, STREAM_BUILDERS
from simulator.simulation import Simulation


def call_after(delay: float, call: Callable[[], None]) -> None:
    """Calls after so many seconds, or at once when the delay is 0."""
    if delay:
        asyncio.get_running_loop().call_later(delay, call)
    else:
        call()


def send_half(connection: Connection, response: bytes, fault: str) -> None:
    """Sends half of the response, then aborts the connection (`cut`) or sends nothing more."""
    connection.send(response[: len(response) // 2])
    if fault == "cut":
        connection.abort()


class Api:
    """The endpoints below /v1/."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def handle(self, connection: Connection, request: Request, path: str) -> None:
        """Responds to the request, now or later."""
        simulation = self._simulation
        simulation.counters["requests"] += 1
        if path.startswith("/v1/models"):
            connection.finish(self._list_models(request, path))
            return
        try:
            account = simulation.accounts.authorize(request.bearer_token())
        except TokenRefused as refused:
            connection.finish(encode_error(401, str(refused), "the access token is not valid"))
            return
        if not simulation.accounts.begin_request(account):
            error = encode_error(429, "rate_limit_exceeded", "one request at a time", "retry-after: 1\r\n")
            connection.finish(error)
            return
        connection.on_end = lambda: self._end_request(account, request)
        allowances = simulation.allowances
        model = str((request.json() or {}).get("model", "")) if allowances.depends_on_model else ""
        has_allowance = allowances.take(account.number, model)
        connection.extra_headers = partial(allowances.headers, account.number, model)
        if not has_allowance:
            simulation.counters["over_limit"] += 1
            message, headers = "no request is left in this window", allowances.refusal_headers()
            connection.finish(encode_error(429, "rate_limit_exceeded", message, headers))
            return
        fault = self._find_fault(account, request)
        account.is_hung = fault in ("hang_headers", "hang_stream")
        self._respond(connection, request, path, fault)

    def _find_fault(self, account: SimulatedAccount, request: Request) -> str:
        """What is wrong with the account or the request, else a drawn fault."""
        faults = self._simulation.faults
        if account.number == faults.bad_account:
            return "bad_account"
        return "poison" if faults.poison and faults.is_poisoned(request.json()) else faults.draw()

    def _end_request(self, account: SimulatedAccount, request: Request) -> None:
        """Frees the account: the response is complete, or the client has disconnected."""
        self._simulation.accounts.end_request(account)
        if self._simulation.is_traced:
            self._simulation.ended.append((responses.extract_last_message(request.json() or {}), time.time()))

    def _list_models(self, request: Request, path: str) -> bytes:
        try:
            self._simulation.accounts.authorize(request.bearer_token())
        except TokenRefused as refused:
            return encode_error(401, str(refused), "the access token is not valid")
        name = path.removeprefix("/v1/models").strip("/")
        models = responses.build_model_list()
        if not name:
            return encode_response(200, encode_json(models))
        for model in models["data"]:
            if model["id"] == name:
                return encode_response(200, encode_json(model))
        return encode_error(404, "model_not_found", "no such model")

    def _respond(self, connection: Connection, request: Request, path: str, fault: str) -> None:
        """Sends the fault's response; without a fault, or with one that breaks off the response, the usual one."""
        faults = self._simulation.faults
        if fault:
            self._simulation.counters[f"fault_{fault}"] += 1
        if fault == "rate_limit":
            wait = faults.retry_after
            value = formatdate(time.time() + wait, usegmt=True) if faults.retry_date else f"{wait:g}"
            connection.finish(encode_error(429, "rate_limit_exceeded", "slow down", f"retry-after: {value}\r\n"))
        elif fault == "poison":
            extra = f"retry-after: {faults.poison_retry_after:g}\r\n" if faults.poison_retry_after else ""
            connection.finish(encode_error(faults.poison, "poisoned", "nobody serves this request", extra))
        elif fault in ("server_error", "bad_account"):
            connection.finish(encode_error(500, "server_error", "the simulator was told to fail"))
        elif fault == "expired":
            connection.finish(encode_error(401, "token_expired", "the access token is not valid"))
        elif fault in FAULT_BODIES:
            connection.finish(encode_response(200, *FAULT_BODIES[fault]))
        elif fault != "hang_headers":
            delay = self._simulation.pace.delay
            call_after(delay, lambda: self._send_response(connection, request, path, fault))

    def _send_response(self, connection: Connection, request: Request, path: str, fault: str) -> None:
        try:
            self._build_and_send(connection, request, path, fault)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            connection.finish(encode_error(400, "invalid_type", "a field of the request has the wrong type"))

    def _build_and_send(self, connection: Connection, request: Request, path: str, fault: str) -> None:
        """Raises AttributeError, IndexError, KeyError, TypeError or ValueError when a field has the wrong type."""
        number = self._simulation.counters["requests"]
        if path in MULTIPART_PATHS:
            connection.finish(encode_response(200, encode_json(responses.build_transcript(request.body))))
            return
        body = request.json()
        if body is None:
            connection.finish(encode_error(400, "invalid_json", "the body is not a JSON object"))
        elif path == "/v1/audio/speech":
            connection.finish(encode_response(200, responses.build_speech(body), "audio/mpeg"))
        elif path not in RESPONSE_BUILDERS:
            connection.finish(encode_error(404, "unknown_url", "no such path"))
        elif body.get("stream") and path in STREAM_BUILDERS:
            connection.send(STREAM_HEAD)
            events = STREAM_BUILDERS[path](body, number, self._simulation.pace.chunks)
            self._stream(connection, events, fault, lambda: self._count_usage(RESPONSE_BUILDERS[path](body, number)))
        else:
            value = RESPONSE_BUILDERS[path](body, number)
            response = encode_response(200, encode_json(value))
            if fault:
                send_half(connection, response, fault)
            else:
                self._count_usage(value)
                connection.finish(response)

    def _count_usage(self, body: dict[str, Any]) -> None:
        """Counts the tokens of a complete response."""
        for name, tokens in body.get("usage", {}).items():
            self._simulation.counters[name] += tokens

    def _stream(
        self, connection: Connection, events: Iterator[bytes], fault: str, on_complete: Callable[[], None]
    ) -> None:
        """Sends the events at the set pace, each at its scheduled time, so that a late one does not delay the rest.

        Each event is built when it is sent: a hundred streams that start together would otherwise wait until ten
        thousand events are built.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        pace = self._simulation.pace
        last = pace.chunks
        stop_at = (last + 1) // 2 if fault else last + 1

        def send(i: int) -> None:
            if connection.transport.is_closing():
                return
            if i == stop_at:
                send_half(connection, b"", fault)
                return
            if i == last:
                on_complete()
                connection.finish(encode_chunk(next(events)) + STREAM_END)
                return
            connection.send(encode_chunk(next(events)))
            chunk_delay = self._simulation.pace.chunk_delay
            if chunk_delay:
                loop.call_at(started + (i + 1) * chunk_delay, send, i + 1)
            else:
                send(i + 1)

        send(0)
