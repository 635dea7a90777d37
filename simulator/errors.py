"""HTTP responses with an error in OpenAI's shape."""

from simulator.http_connection import encode_response
from simulator.responses import encode_json


def encode_error(status: int, code: str, message: str, extra: str = "") -> bytes:
    """A complete HTTP response; `extra` holds more header lines, each with its CRLF."""
    body = {"error": {"message": message, "type": "simulated", "param": None, "code": code}}
    return encode_response(status, encode_json(body), extra=extra)
