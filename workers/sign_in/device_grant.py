"""The device authorization grant (RFC 8628): a code for the owner, and polls for the tokens. No I/O."""

from dataclasses import dataclass

from shared.errors import InvalidGrant, TokenEndpointDown, TokenError
from workers.credentials.token_endpoint.token_error_codes import find_error_codes
from workers.credentials.token_endpoint.token_response import (
    TokenGrant,
    TokenResponse,
    parse_token_response,
    read_fields,
)
from workers.sign_in.authorization_code import build_refusal

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
#: Seconds between two polls where the server says nothing, and by which `slow_down` makes them longer (section 3.5).
DEFAULT_INTERVAL_SECONDS, SLOW_DOWN_SECONDS = 5.0, 5.0
#: Bounds of an interval, and of the time for which a device code is waited for, in seconds.
MIN_INTERVAL_SECONDS, MAX_INTERVAL_SECONDS, MAX_LIFETIME_SECONDS = 0.2, 60.0, 1800.0


@dataclass(frozen=True, repr=False)
class DeviceAuthorization:
    """An answer of the device authorization endpoint. It has no repr, because it has a secret."""

    device_code: str
    user_code: str
    #: Page to open; it may have the code in it.
    url: str
    #: Seconds.
    lifetime: float
    interval: float


def read_authorization(response: TokenResponse) -> DeviceAuthorization:
    """Raises SignInFailed."""
    fields = read_fields(response.body) or {}
    codes = [code for code in find_error_codes(fields) if not code.isdecimal()]
    device_code, user_code = (str(fields.get(name) or "") for name in ("devicecode", "usercode"))
    pages = (fields.get(name) for name in ("verificationuricomplete", "verificationuri", "verificationurl"))
    url = next((str(page) for page in pages if str(page or "").startswith(("https://", "http://"))), "")
    if response.status != 200 or not (device_code and user_code and url):
        raise build_refusal(codes[0] if codes else f"http_{response.status}")
    return DeviceAuthorization(
        device_code,
        user_code,
        url,
        min(read_seconds(fields.get("expiresin"), MAX_LIFETIME_SECONDS), MAX_LIFETIME_SECONDS),
        clamp_interval(read_seconds(fields.get("interval"), DEFAULT_INTERVAL_SECONDS)),
    )


def read_seconds(value: object, default: float) -> float:
    try:
        seconds = float(str(value))
    except ValueError:
        return default
    return seconds if 0 < seconds < float("inf") else default


def clamp_interval(seconds: float) -> float:
    return min(max(seconds, MIN_INTERVAL_SECONDS), MAX_INTERVAL_SECONDS)


def build_poll(device_code: str) -> dict[str, str]:
    return {"grant_type": GRANT_TYPE, "device_code": device_code}


def judge_poll(response: TokenResponse, interval: float) -> tuple[TokenGrant | None, float]:
    """The tokens, or None while the owner has not decided, and the seconds until the next poll. Raises SignInFailed."""
    codes = find_error_codes(read_fields(response.body))
    if "slow_down" in codes:
        return None, interval + SLOW_DOWN_SECONDS
    if "authorization_pending" in codes:
        return None, interval
    try:
        return parse_token_response(response), interval
    except TokenEndpointDown:
        return None, back_off(interval)
    except (InvalidGrant, TokenError) as error:
        raise build_refusal(error.code) from None


def back_off(interval: float) -> float:
    """The pause after a poll that got no answer (section 3.5)."""
    return clamp_interval(interval * 2)
