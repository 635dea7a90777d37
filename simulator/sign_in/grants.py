"""Authorization codes and device codes, from their issue to their one use. No I/O.

Sources: RFC 6749 section 4.1, RFC 7636 (PKCE), RFC 8628 (device grant).
"""

import base64
import hashlib
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field

from simulator.accounts import TokenRefused

#: Seconds for which an authorization code is valid.
CODE_SECONDS = 60.0
#: Letters of a user code: no vowels, so that no words come about (RFC 8628 section 6.1).
USER_CODE_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
#: Seconds by which a poll that comes too early makes the interval longer (RFC 8628 section 3.5).
SLOW_DOWN_SECONDS = 5.0


@dataclass(frozen=True)
class Approval:
    """What an owner has agreed to."""

    account: int
    client_id: str
    scope: str
    nonce: str = ""


@dataclass(frozen=True)
class IssuedCode:
    """An authorization code that is not used yet."""

    approval: Approval
    redirect_uri: str
    #: PKCE, S256.
    challenge: str
    expires_at: float


@dataclass
class DeviceCode:
    """A device authorization that waits for its owner."""

    client_id: str
    scope: str
    user_code: str
    expires_at: float
    #: Seconds that the client has to leave between two polls.
    interval: float
    polled_at: float = 0.0
    #: None while the owner has not decided.
    decision: str | None = None
    account: int = 0


@dataclass
class SignInGrants:
    """All codes of one simulator."""

    #: Seconds between two polls of a device code, and for which it is valid.
    interval: float = 1.0
    device_seconds: float = 600.0
    counters: Counter[str] = field(default_factory=Counter)
    _codes: dict[str, IssuedCode] = field(default_factory=dict)
    _devices: dict[str, DeviceCode] = field(default_factory=dict)

    def issue_code(self, approval: Approval, redirect_uri: str, challenge: str) -> str:
        code = secrets.token_urlsafe(24)
        self._codes[code] = IssuedCode(approval, redirect_uri, challenge, time.time() + CODE_SECONDS)
        return code

    def redeem_code(self, code: str, redirect_uri: str, verifier: str, client_id: str) -> Approval:
        """Uses a code. Raises TokenRefused with `invalid_grant`."""
        issued = self._codes.pop(code, None)
        digest = hashlib.sha256(verifier.encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if issued is None or issued.expires_at < time.time():
            self.counters["refused_codes"] += 1
            raise TokenRefused("invalid_grant")
        if (issued.redirect_uri, issued.challenge, issued.approval.client_id) != (redirect_uri, challenge, client_id):
            self.counters["refused_codes"] += 1
            raise TokenRefused("invalid_grant")
        return issued.approval

    def begin_device(self, client_id: str, scope: str) -> tuple[str, DeviceCode]:
        """A new device code, and what belongs to it."""
        letters = "".join(secrets.choice(USER_CODE_LETTERS) for _ in range(8))
        user_code = f"{letters[:4]}-{letters[4:]}"
        device = DeviceCode(client_id, scope, user_code, time.time() + self.device_seconds, self.interval)
        device_code = secrets.token_urlsafe(24)
        self._devices[device_code] = device
        return device_code, device

    def decide_device(self, user_code: str, decision: str, account: int) -> bool:
        """Records the owner's decision, `allow` or `deny`; False when no device waits with that code."""
        for device in self._devices.values():
            if device.user_code == user_code.strip().upper() and device.expires_at > time.time():
                device.decision, device.account = decision, account
                return True
        return False

    def poll_device(self, device_code: str, client_id: str) -> Approval:
        """Uses a device code once its owner has agreed. Raises TokenRefused with an error of RFC 8628 section 3.5."""
        self.counters["device_polls"] += 1
        device = self._devices.get(device_code)
        if device is None or device.client_id != client_id:
            raise TokenRefused("invalid_grant")
        now = time.time()
        if device.expires_at < now:
            raise TokenRefused("expired_token")
        if now < device.polled_at + device.interval * 0.9:
            device.interval += SLOW_DOWN_SECONDS
            self.counters["slow_downs"] += 1
            raise TokenRefused("slow_down")
        device.polled_at = now
        if device.decision is None:
            raise TokenRefused("authorization_pending")
        del self._devices[device_code]
        if device.decision != "allow":
            raise TokenRefused("access_denied")
        return Approval(device.account, device.client_id, device.scope)
