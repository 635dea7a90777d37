"""The simulator's API: routes requests to accounts, answers and faults; what it counts is at /simulator/counters."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from simulator import answers
from simulator.accounts import Account, Accounts, Refused
from simulator.exchanges import error, grant_body, presented_token, read_json, revoked_token
from simulator.faults import Faults
from simulator.routes import JSON_ANSWERS, MULTIPART, NO_ANSWERS, STREAMED_ANSWERS
from simulator.wire import STREAM_END, STREAM_HEAD, Connection, Request, answer, chunk


@dataclass
class Pace:
    """How long answers take."""

    #: Seconds before an answer, or before a stream's first event.
    delay: float = 0
    #: Events with text in a stream.
    chunks: int = 8
    #: Seconds between two of them.
    chunk_delay: float = 0


@dataclass
class Simulator:
    """One upstream with its accounts, pace and faults."""

    accounts: Accounts
    pace: Pace = field(default_factory=Pace)
    faults: Faults = field(default_factory=Faults)
    counters: Counter[str] = field(default_factory=Counter)
    #: Whether the ends of requests are kept, and the last of them: the last message and when.
    is_traced: bool = False
    ended: deque[tuple[str, float]] = field(default_factory=lambda: deque(maxlen=20_000))

    def handle(self, connection: Connection, request: Request) -> None:
        """Answers one request, now or later."""
        path = request.path.partition("?")[0]
        if path.startswith("/v1/"):
            self._api(connection, request, path)
        elif path == "/oauth/token":
            after(self.faults.token_delay, lambda: connection.finish(self._token(request)))
        elif path == "/oauth/revoke":
            self.accounts.revoke(revoked_token(request))
            connection.finish(answer(200, b""))
        else:
            connection.finish(self._control(request, path))

    # The API

    def _api(self, connection: Connection, request: Request, path: str) -> None:
        self.counters["requests"] += 1
        if path.startswith("/v1/models"):
            connection.finish(self._models(request, path))
            return
        try:
            account = self.accounts.authorize(request.headers.get("authorization", "").removeprefix("Bearer "))
        except Refused as refused:
            connection.finish(error(401, str(refused), "the access token is not valid"))
            return
        if not self.accounts.enter(account):
            connection.finish(error(429, "rate_limit_exceeded", "one request at a time", "retry-after: 1\r\n"))
            return
        connection.on_end = lambda: self._end(connection, account, request)
        fault = self.faults.draw()
        account.is_hung = fault in ("hang_headers", "hang_stream")
        self._serve(connection, request, path, fault)

    def _end(self, connection: Connection, account: Account, request: Request) -> None:
        """The request is over: answered, or given up by its client."""
        self.accounts.leave(account)
        if self.is_traced:
            self.ended.append((answers.last_message(read_json(request.body) or {}), time.time()))

    def _models(self, request: Request, path: str) -> bytes:
        try:
            self.accounts.authorize(request.headers.get("authorization", "").removeprefix("Bearer "))
        except Refused as refused:
            return error(401, str(refused), "the access token is not valid")
        wanted = path.removeprefix("/v1/models").strip("/")
        found = answers.models()
        if not wanted:
            return answer(200, answers.dump(found))
        for model in found["data"]:
            if model["id"] == wanted:
                return answer(200, answers.dump(model))
        return error(404, "model_not_found", "no such model")

    def _serve(self, connection: Connection, request: Request, path: str, fault: str) -> None:
        if fault:
            self.counters[f"fault_{fault}"] += 1
        if fault == "rate_limit":
            wait = self.faults.retry_after
            value = formatdate(time.time() + wait, usegmt=True) if self.faults.retry_date else f"{wait:g}"
            header = f"retry-after: {value}\r\n"
            connection.finish(error(429, "rate_limit_exceeded", "slow down", header))
        elif fault == "server_error":
            connection.finish(error(500, "server_error", "the simulator was told to fail"))
        elif fault == "expired":
            connection.finish(error(401, "token_expired", "the access token is not valid"))
        elif fault in NO_ANSWERS:
            connection.finish(answer(200, *NO_ANSWERS[fault]))
        elif fault != "hang_headers":
            after(self.pace.delay, lambda: self._answer(connection, request, path, fault))

    def _answer(self, connection: Connection, request: Request, path: str, fault: str) -> None:
        try:
            self._answer_well(connection, request, path, fault)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            connection.finish(error(400, "invalid_type", "a field of the request has the wrong type"))

    def _answer_well(self, connection: Connection, request: Request, path: str, fault: str) -> None:
        number = self.counters["requests"]
        if path in MULTIPART:
            connection.finish(answer(200, answers.dump(answers.transcript(request.body))))
            return
        asked = read_json(request.body)
        if asked is None:
            connection.finish(error(400, "invalid_json", "the body is not a JSON object"))
        elif path == "/v1/audio/speech":
            connection.finish(answer(200, answers.speech(asked), "audio/mpeg"))
        elif path not in JSON_ANSWERS:
            connection.finish(error(404, "unknown_url", "no such path"))
        elif asked.get("stream") and path in STREAMED_ANSWERS:
            connection.send(STREAM_HEAD)
            events = STREAMED_ANSWERS[path](asked, number, self.pace.chunks)
            self._stream(connection, events, fault, lambda: self._count(JSON_ANSWERS[path](asked, number)))
        else:
            found = JSON_ANSWERS[path](asked, number)
            whole = answer(200, answers.dump(found))
            if fault:
                broken(connection, whole, fault)
            else:
                self._count(found)
                connection.finish(whole)

    def _count(self, whole: dict[str, Any]) -> None:
        """The tokens of an answer that went out whole."""
        for name, tokens in whole.get("usage", {}).items():
            self.counters[name] += tokens

    def _stream(
        self, connection: Connection, events: Iterator[bytes], fault: str, when_whole: Callable[[], None]
    ) -> None:
        """Sends the events at the set pace; by the clock, so that a late one does not delay the rest.

        Each is made when it is sent: a hundred streams that begin at once would else wait for ten thousand events.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        last = self.pace.chunks
        stop_at = (last + 1) // 2 if fault else last + 1

        def send(i: int) -> None:
            if connection.transport.is_closing():
                return
            if i == stop_at:
                broken(connection, b"", fault)
                return
            if i == last:
                when_whole()
                connection.finish(chunk(next(events)) + STREAM_END)
                return
            connection.send(chunk(next(events)))
            if self.pace.chunk_delay:
                loop.call_at(started + (i + 1) * self.pace.chunk_delay, send, i + 1)
            else:
                send(i + 1)

        send(0)

    # The token endpoint

    def _token(self, request: Request) -> bytes:
        if self.faults.draw_token_error():
            self.counters["fault_token_error"] += 1
            return error(503, "temporarily_unavailable", "the simulator was told to fail")
        try:
            grant = self.accounts.refresh(presented_token(request))
        except Refused as refused:
            return answer(400, answers.dump({"error": str(refused), "error_description": "refused by the simulator"}))
        return answer(200, answers.dump(grant_body(grant)))

    # The tester's own doors

    def _control(self, request: Request, path: str) -> bytes:
        """GET what was counted or noted; POST a JSON object to set the pace, the faults or the accounts."""
        if path == "/simulator/lost":
            return answer(200, answers.dump(self.accounts.lost_grants))
        if path == "/simulator/ended":
            self.is_traced = True
            return answer(200, answers.dump(list(self.ended)))
        if path == "/simulator/counters":
            now = {"in_flight": self.accounts.in_flight, "dead_accounts": self.accounts.dead}
            shared = {**self.counters, **self.accounts.counters, **now}
            return answer(200, answers.dump({"collisions": 0, "served": 0, "refreshes": 0, **shared}))
        asked = read_json(request.body) or {}
        try:
            done = self._set(path, asked)
        except (TypeError, ValueError, KeyError) as wrong:
            return error(400, "bad_setting", str(wrong))
        return answer(200, b"{}") if done else error(404, "unknown_url", "no such path")

    def _set(self, path: str, asked: dict[str, Any]) -> bool:
        if path == "/simulator/pace":
            self.pace = Pace(**asked)
        elif path == "/simulator/faults":
            self.faults = Faults.of(asked)
        elif path == "/simulator/accounts":
            self._set_accounts(**asked)
        elif path == "/simulator/reset":
            self.counters.clear()
            self.accounts.counters.clear()
        else:
            return False
        return True

    def _set_accounts(
        self,
        access_ttl: float | None = None,
        rotate: bool | None = None,
        expire: bool = False,
        kill: int | None = None,
        slots: int | None = None,
    ) -> None:
        if access_ttl is not None:
            self.accounts.access_ttl = access_ttl
        if rotate is not None:
            self.accounts.rotate = rotate
        if slots is not None:
            self.accounts.slots = slots
        if expire:
            self.accounts.expire_all()
        if kill is not None:
            self.accounts.kill(kill)


def broken(connection: Connection, whole: bytes, fault: str) -> None:
    """Half an answer, then a cut or silence."""
    connection.send(whole[: len(whole) // 2])
    if fault == "cut":
        connection.cut()


def after(delay: float, call: Callable[[], None]) -> None:
    """Calls at once, or after so many seconds."""
    if delay:
        asyncio.get_running_loop().call_later(delay, call)
    else:
        call()


async def serve(simulator: Simulator, host: str, port: int) -> None:
    """Serves until cancelled; prints its URL when it listens."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(simulator.handle), host, port, backlog=4096)
    bound = server.sockets[0].getsockname()[1]
    print(f"simulator: listening on http://{host}:{bound}", flush=True)
    async with server:
        await server.serve_forever()
