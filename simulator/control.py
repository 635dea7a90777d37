"""The control endpoints below /simulator, for tests and the benchmark: counters, pace, faults and accounts."""

from collections import deque
from typing import Any

from simulator.allowances import Allowances
from simulator.errors import encode_error
from simulator.faults import Faults
from simulator.http_connection import Request, encode_response
from simulator.responses import encode_json
from simulator.simulation import Pace, Simulation
from simulator.token_endpoint.token_rules import TokenRules


def handle_control(simulation: Simulation, request: Request, path: str) -> bytes:
    """The HTTP response to a control request: some paths read values, the others apply a JSON object.

    Reading /simulator/ended starts the recording of the ends of requests, /simulator/received that of requests.
    """
    if path == "/simulator/received":
        received = simulation.received = deque(maxlen=1000) if simulation.received is None else simulation.received
        return encode_response(200, encode_json(list(received)))
    if path == "/simulator/lost":
        return encode_response(200, encode_json(simulation.accounts.lost_grants))
    if path == "/simulator/ended":
        simulation.is_traced = True
        return encode_response(200, encode_json(list(simulation.ended)))
    if path == "/simulator/arrivals":
        return encode_response(200, encode_json(list(simulation.allowances.arrivals)))
    if path == "/simulator/counters":
        return encode_response(200, encode_json(collect_counters(simulation)))
    try:
        is_known = apply_settings(simulation, path, request.json() or {})
    except (TypeError, ValueError, KeyError) as error:
        return encode_error(400, "bad_setting", str(error))
    return encode_response(200, b"{}") if is_known else encode_error(404, "unknown_url", "no such path")


def collect_counters(simulation: Simulation) -> dict[str, int]:
    accounts = simulation.accounts
    gauges = {"in_flight": accounts.in_flight, "dead_accounts": accounts.dead}
    counters = {**simulation.counters, **accounts.counters, **simulation.sign_ins.counters}
    return {"collisions": 0, "served": 0, "refreshes": 0, **counters, **gauges}


def apply_settings(simulation: Simulation, path: str, values: dict[str, Any]) -> bool:
    """Applies the values; returns False when the path is unknown. Raises TypeError, ValueError or KeyError."""
    if path == "/simulator/pace":
        simulation.pace = Pace(**values)
    elif path == "/simulator/faults":
        simulation.faults = Faults.parse(values)
    elif path == "/simulator/token-rules":
        endpoint = values.pop("endpoint", "")
        simulation.token_rules[endpoint] = TokenRules(**values)
    elif path == "/simulator/allowances":
        simulation.allowances = Allowances(**values)
    elif path == "/simulator/accounts":
        change_accounts(simulation, **values)
    elif path == "/simulator/sign-ins":
        change_sign_ins(simulation, **values)
    elif path == "/simulator/reset":
        simulation.counters.clear()
        simulation.accounts.counters.clear()
        simulation.sign_ins.counters.clear()
    else:
        return False
    return True


def change_accounts(
    simulation: Simulation,
    access_ttl: float | None = None,
    rotate: bool | None = None,
    expire: bool = False,
    kill: int | None = None,
    slots: int | None = None,
) -> None:
    """Applies a JSON object whose members are the parameters; None changes nothing, `kill` is an account's number."""
    accounts = simulation.accounts
    if access_ttl is not None:
        accounts.access_ttl = access_ttl
    if rotate is not None:
        accounts.rotate = rotate
    if slots is not None:
        accounts.slots = slots
    if expire:
        accounts.expire_access_tokens()
    if kill is not None:
        accounts.kill(kill)


def change_sign_ins(simulation: Simulation, interval: float | None = None, device_seconds: float | None = None) -> None:
    """Applies a JSON object whose members are the parameters, in seconds; None changes nothing."""
    grants = simulation.sign_ins
    grants.interval = grants.interval if interval is None else interval
    grants.device_seconds = grants.device_seconds if device_seconds is None else device_seconds
